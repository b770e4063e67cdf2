"""What stops an export, and what it leaves behind."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch

from lco_jax.cli import export as cli
from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.records import Item
from lco_jax.export import verify
from lco_jax.export.folders import VerificationError, export_model
from lco_jax.export.probes import TEXTS, Probe, Probes
from lco_jax.models.families import QWEN2
from lco_jax.train.restore import PROFILE_FILE
from tests import tiny
from tests.export import runs
from tests.weights import folders


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("model") / "base", num_layers=2).folder


@pytest.fixture(scope="module")
def run(base):
    return str(runs.write(base.parent / "run", base))


@pytest.fixture(scope="module")
def merged(base, run):
    out = base.parent / "merged"
    export_model(run, out, "merged", verified=False)
    return out


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_output_that_exists_is_not_touched(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="out exists"):
        export_model(run, tmp_path / "out", "merged")
    (tmp_path / "old.failed").write_text("")
    with pytest.raises(ValueError, match=r"old\.failed exists"):
        export_model(run, tmp_path / "old", "merged")
    assert left_in(tmp_path) == ["old.failed", "out"]


def test_an_empty_output_and_remains_of_a_killed_export_are_replaced(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "remains").write_text("")
    export_model(run, tmp_path / "out", "merged", verified=False)
    assert left_in(tmp_path) == ["out"]
    assert "remains" not in left_in(tmp_path / "out")
    assert json.loads((tmp_path / "out" / PROFILE_FILE).read_text())["verification"] is None
    assert "exported with `--no-verify`" in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_needs_factors(base, tmp_path):
    with pytest.raises(ValueError, match="no low-rank factors"):
        export_model(str(base), tmp_path / "out", "peft")
    assert left_in(tmp_path) == []


def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="do not fit"):
        export_model(run, tmp_path / "out", "merged")
    assert left_in(tmp_path) == []


def test_other_vectors_fail_and_the_folder_is_kept_aside(run, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).standard_normal((len(TEXTS) + 1, 32))
    monkeypatch.setattr(verify, "_last_states", lambda *_: noise)
    with pytest.raises(VerificationError, match=r"lowest cosine(.|\n)*out\.failed"):
        export_model(run, tmp_path / "out", "merged")
    assert left_in(tmp_path) == ["out.failed"]
    record = json.loads((tmp_path / "out.failed" / PROFILE_FILE).read_text())
    assert not record["verification"]["passed"]
    assert "do not use" in (tmp_path / "out.failed" / "README.md").read_text()


@pytest.mark.parametrize("change", ["missing_keys", "unexpected_keys"])
def test_unmatched_tensors_fail(merged, tmp_path, change):
    folder = folders.copy(merged, tmp_path / "changed")
    tensors = folders.read(folder)
    norm = tensors["model.norm.weight"]
    if change == "missing_keys":
        del tensors["model.norm.weight"]
    else:
        tensors["model.second_norm.weight"] = norm.clone()
    folders.store(folder, tensors)
    found = compare(folder, folder)
    assert change in found.unmatched and "norm.weight" in found.unmatched
    assert not found.describe()["passed"]


def test_unmatched_factors_fail(base, run, tmp_path):
    export_model(run, tmp_path / "adapter", "peft", verified=False)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = safetensors.torch.load_file(file)
    lost = sorted(tensors)[0]
    tensors["base_model.model.other.lora_A.weight"] = tensors.pop(lost)
    safetensors.torch.save_file(tensors, file)
    found = compare(tmp_path / "adapter", base)
    assert lost in found.unmatched and "other.lora_A" in found.unmatched


def compare(folder, base):
    record = json.loads((folder / PROFILE_FILE).read_text())
    encoded = Encoded(np.zeros(0, np.int32), np.uint64(0))
    probe = Probe(Item("a cat"), encoded, before="", after="")
    probes = Probes((probe,), np.ones((1, 32), np.float32), head=[])
    return verify.verify(folder, record, family=QWEN2, probes=probes, base_folder=base)


def test_verification_without_torch_says_what_to_do(run, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    with pytest.raises(ValueError, match=r"needs torch: pip install .*--no-verify"):
        export_model(run, tmp_path / "out", "merged")
    assert left_in(tmp_path) == []


def test_export_itself_does_not_import_torch():
    code = (
        "import sys, lco_jax.export.folders, lco_jax.cli.export; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--model", "nowhere"], 2, "neither a folder nor a hub id"),
        (["--model", "RUN", "--checkpoint", "7"], 2, "has no checkpoint 7"),
        (["--model", "RUN", "--no-verify"], 0, ""),
        (["--model", "RUN"], 0, ""),
    ],
)
def test_program(run, tmp_path, monkeypatch, capsys, options, code, message):
    options = [run if option == "RUN" else option for option in options]
    output = str(tmp_path / "out")
    argv = ["export.py", "--format", "merged", "--output", output, *options]
    monkeypatch.setattr(sys, "argv", argv)
    assert cli.main() == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert ("transformers" in captured.out) == (code == 0 and "--no-verify" not in options)
    assert left_in(tmp_path) == (["out"] if code == 0 else [])
