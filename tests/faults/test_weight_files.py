"""Files of weights with damaged bytes: each is read rightly or refused by name.

A flipped bit in a value that stays a number is no case: without a checksum nobody can see it.
"""

import numpy as np
import pytest
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tests import tiny
from tests.faults import folder_cases, runner
from tests.faults.folder_cases import Case
from tests.lab.test_gguf import hub_weights, write_gguf
from tests.lab.test_whisper import SIZES, WhisperConfig, variables_of, write_variables

LIMIT_S, LIMIT_BYTES = 60.0, 1 << 30
SHORT, LONG = 12, 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, a GGUF file and one of CTranslate2, each in a folder of its own."""
    root = tmp_path_factory.mktemp("weights")
    tiny.write(root / "hub", "qwen2", num_layers=1)
    (root / "gguf").mkdir()
    write_gguf(root / "gguf" / "tiny.gguf", hub_weights(np.random.default_rng(0)))
    (root / "whisper").mkdir()
    encoder = WhisperEncoder(WhisperConfig(**SIZES))
    write_variables(root / "whisper" / "model.bin", variables_of(encoder))
    return root


KINDS = {
    "safetensors": (folder_cases.open_weights, "hub", "model.safetensors"),
    "gguf": (folder_cases.convert, "gguf", "tiny.gguf"),
    "ctranslate2": (folder_cases.read_whisper, "whisper", "model.bin"),
}


def check(root, kind, seeds):
    act, place, file = KINDS[kind]
    cases = [Case(root / place, file, seed) for seed in seeds]
    outcomes = runner.run_many(
        act,
        cases,
        names=[file, "does not fit"],
        expected=folder_cases.is_right,
        limit_s=LIMIT_S,
        limit_bytes=LIMIT_BYTES,
    )
    print(kind, runner.count(outcomes))
    assert not runner.bad(zip(cases, outcomes, strict=True))
    assert {outcome.kind for outcome in outcomes} == {"right", "refused"}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes(folder, kind):
    check(folder, kind, range(SHORT))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_bytes(folder, kind):
    check(folder, kind, range(SHORT, SHORT + LONG))
