"""Bad input to `launch/train.py`: exit code 2 and a message that names what to change."""

import json
import sys
from pathlib import Path

import pytest

from lco_jax.cli.train import main
from lco_jax.config.io import to_json
from lco_jax.train import setup
from tests import runs, tiny

GOOD = {"anchor": {"text": "a"}, "positive": {"text": "b"}, "negative": {"text": "c"}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("checkpoint"), num_layers=1).folder


@pytest.fixture
def train(checkpoint, tmp_path, monkeypatch, capsys):
    """Runs the program on the given lines of data; returns its exit code and what it said."""

    def run(lines, *options):
        data = tmp_path / "triplets.jsonl"
        data.write_text(
            "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        )
        config = to_json(runs.make_config(checkpoint, data, num_steps=1))
        file = tmp_path / "tiny_config.py"
        file.write_text(
            "import json\nfrom lco_jax.config.io import from_json\n"
            f"get_config = lambda: from_json(json.loads({json.dumps(config)!r}))\n"
        )
        arguments = ["--config", str(file), "--workdir", str(tmp_path / "run"), *options]
        monkeypatch.setattr(sys, "argv", ["launch/train.py", *arguments])
        try:
            code = main()
        except SystemExit as stop:  # the command line's own errors
            code = stop.code
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return run


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"anchor": ', "triplets.jsonl:2: not JSON"),
        ({"positive": {"text": "b"}}, "triplets.jsonl:2: lacks 'anchor'"),
        ({**GOOD, "positive": {"text": 7}}, "triplets.jsonl:2: positive.text is"),
        ({**GOOD, "anchor": {"text": " "}}, "triplets.jsonl:2: anchor is empty"),
        ({**GOOD, "negativ": {"text": "c"}}, "did you mean 'negative'?"),
    ],
)
def test_bad_line(train, line, message):
    code, said = train([GOOD, line, *[GOOD] * 20], "--mesh.data", "1", "--mesh.fsdp", "-1")
    assert (code, message in said) == (2, True), said


def test_batch_smaller_than_the_mesh(train):
    code, said = train([GOOD] * 40, "--data.batch-size", "4", "--mesh.data", "8")
    assert code == 2
    assert "batch_size=4 is less than encode_chunks=1 times 8 data shards" in said
    assert "use a batch_size of at least 8" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data.batch-size", "48"), "batch_size=48 is more than all 40 examples of the sources"),
        (("--data.sources.0.max-examples", "0"), "max_examples=0"),
        (("--num-steps", "0"), "num_steps=0 trains nothing"),
        (("--num-steps", "None", "--num-epochs", "0"), "num_epochs=0 trains nothing"),
        (("--optimizer.peak-lr", "-1e-3"), "peak_lr=-0.001 must be positive"),
        (("--optimizer.clip-norm", "0"), "clip_norm=0.0 leaves nothing of a gradient"),
        (("--seed", "-1"), "seed=-1 must not be negative"),
        (("--data.max-text-tokens", "0"), "max_text_tokens=0 leaves nothing of a text"),
        (("--data.max-text-tokens", "-5"), "max_text_tokens=-5 leaves nothing of a text"),
        (("--checkpoint.every-steps", "0"), "checkpoint.every_steps=0 must be positive"),
        (("--logging.every-steps", "0"), "logging.every_steps=0 must be positive"),
        (("--memory.least-shape", "0", "-1", "0"), "least_shape=(0, -1, 0) must not be negative"),
        (("--memory.row-tokens", "-64", "64"), "row_tokens=(-64, 64) must be positive"),
        (("--memory.frame-rows", "100", "256"), "frame_rows=(100, 256) must be multiples of 128"),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value, tuple) else "",
)
def test_no_step_at_all(train, monkeypatch, options, message):
    def compile_something(*_):
        raise AssertionError("weights are read and programs compiled")

    monkeypatch.setattr(setup, "initial_state", compile_something)
    code, said = train([GOOD] * 40, "--mesh.data", "8", *options)
    assert (code, message in said) == (2, True), said


def test_mesh_of_another_size(train):
    code, said = train([GOOD] * 40, "--mesh.data", "3")
    assert code == 2
    assert "needs 3 devices, found 8" in said


def test_mesh_that_does_not_divide_the_model(train):
    code, said = train([GOOD] * 40, "--mesh.data", "2", "--mesh.tensor", "4")
    assert code == 2
    assert "mesh.tensor=4 does not divide key-value heads (2); use 1, 2" in said


def test_missing_file(train):
    code, said = train([GOOD] * 40, "--mesh.data", "8", "--data.sources.0.path", "nowhere.jsonl")
    assert (code, "nowhere.jsonl: no such file" in said) == (2, True), said


def test_missing_model(train):
    code, said = train([GOOD] * 40, "--mesh.data", "8", "--model.path", "./no-such-model")
    assert code == 2
    assert "neither a folder nor a hub id" in said


def test_unknown_option_suggests_the_nearest(train):
    code, said = train([GOOD] * 40, "--optimizer.peek-lr", "1")
    assert code == 2
    assert "--optimizer.peak-lr" in said


def test_bad_value(train):
    code, said = train([GOOD] * 40, "--objective.temperature", "0")
    assert code == 2
    assert "temperature=0.0 must be positive" in said


def test_missing_config(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["launch/train.py", "--config", "configs/none.py"])
    assert main() == 2
    assert "lco_omni_3b_multimodal, lco_omni_3b_text" in capsys.readouterr().err


def test_tpu_without_a_tpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["launch/train.py", "--tpu"])
    assert main() == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "found 8 cpu device(s)" in said
    assert "pip install" in said


def test_changed_science(train, tmp_path):
    code, said = train([GOOD] * 40, "--mesh.data", "8")
    assert code == 0, said
    code, said = train([GOOD] * 40, "--mesh.data", "8", "--optimizer.peak-lr", "0.5")
    assert code == 2
    assert "optimizer.peak_lr: 0.01 in the run, 0.5 now" in said
    assert Path(tmp_path / "run" / "checkpoints" / "1").is_dir()
