"""What programs say on stderr in a normal run: their own lines, and nothing of libraries."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

ROOT = Path(__file__).parents[2]
CONFIG = """
from lco_jax.config import *

def get_config():
    return TrainConfig(
        model=ModelRef({model!r}, trainable=Lora(rank=4, alpha=8)),
        data=DataConfig(sources=(TfdsSource("wordnet", max_examples=64),), batch_size=8),
        optimizer=OptimizerConfig(warmup_steps=1),
        evaluation=Evaluation(TfdsSource("wordnet", split="test"), num_pairs=8),
        num_steps=2,
    )
"""
OWN = {
    "train": (
        r"wordnet is ready in .*",  # the first time
        r"[\d,]+ trainable of [\d,]+ parameters on .*",
        r"after step \d: recall@1 .*",
        r"training ━+ \d/\d .*",
        r"best: step 2, mrr [\d.]+; embed with --model run",
        r"report: .*/index.html",
    ),
    "embed": (
        r"reading the model model",
        r"encoding ━+ 100% .*",
        r"2 vectors of width 32 in .*",
    ),
    "export": (
        r"sentence-transformers written; encoding \d+ probes with torch",
        r"export is verified",
    ),
    "analyze": (
        r"encoding ━+ .*",
        r"4 pairs: tables and figures in analysis",
    ),
    "search": (
        r"reading the model model",
        r"encoding ━+ .*",
        r"encoding 2 new items",
        r"2 items searched, 2 of them encoded now",
    ),
}
"""Whole lines, behind the time."""


COMMANDS = {
    "train": "--config config.py --workdir run",
    "embed": "--model model --input items.jsonl --output vectors.npy",
    "export": "--model model --format sentence-transformers --output export",
    "analyze": "--model model --pairs pairs.jsonl --output analysis --k 2",
    "search": "--model model --cache vectors items.jsonl sea",
}
SLOW = ("export", "train", "analyze", "search")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet")
    model = tiny.write(folder / "model", num_layers=1).folder
    (folder / "config.py").write_text(CONFIG.format(model=str(model)))
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, ["a text", {"text": "two"}])))
    pairs = [{"anchor": f"text {i}", "positive": f"much the same as {i}"} for i in range(4)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return folder


def run(folder, *arguments):
    """What Python says on stderr, line by line."""
    # Not the settings of the tests: JAX looks for devices as it does for a user.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XLA"))}
    env |= {"COLUMNS": "300", "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in re.split(r"[\n\r]+", done.stderr) if line.strip()]


@pytest.mark.parametrize(
    "program",
    ["embed", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def test_a_normal_run_says_nothing_alarming(folder, program):
    lines = run(folder, ROOT / "launch" / f"{program}.py", *COMMANDS[program].split())
    texts = [re.sub(r"^\[[\d/]+ [\d:]+\]", "", line).strip() for line in lines]
    others = [text for text in texts if not any(re.fullmatch(own, text) for own in OWN[program])]
    assert others == []
    assert len(texts) >= 2


@pytest.mark.parametrize("lock", ["only_writer", "only_writer_of"])
def test_who_takes_a_lock_first_starts_no_absent_tpu(tmp_path, lock):
    code = f"from lco_jax.runtime.locks import {lock}\nwith {lock}('place'): pass"
    assert run(tmp_path, "-c", code) == []
