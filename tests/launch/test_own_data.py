"""`launch/train.py` on files of one's own, without a config: what people type first."""

import csv
import json
import sys
import time

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from lco_jax.cli.train import main
from lco_jax.objectives.loaders import ContrastiveLoader
from lco_jax.train import setup
from lco_jax.train.manifest import read_manifest
from lco_jax.train.metrics import read_metrics
from tests import runs, tiny

COLUMNS = "query=anchor,answer=positive,wrong=negative"
QUICK = ("--data.batch-size", "8", "--num-steps", "10", "--checkpoint.every-steps", "2")
QUICK += ("--model.dtype", "float32", "--memory.least-shape", "4", "0", "0", "--memory.row-tokens")
QUICK += ("64", "--logging.no-report", "--logging.no-tensorboard")
"""Small, and of one shape: compilations are most of the time."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint beside the same rows in two kinds of files, and held-out ones."""
    folder = tmp_path_factory.mktemp("own")
    tiny.write(folder / "model", num_layers=1)
    lines = runs.write_triplets(folder / "all.jsonl", 48).read_text().splitlines()
    rows = [
        [json.loads(line)[role]["text"] for role in ("anchor", "positive", "negative")]
        for line in lines
    ]
    for name, own in (("my", rows[:40]), ("held_out", rows[40:])):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["query", "answer", "wrong"], *own])
    pq.write_table(pyarrow.csv.read_csv(folder / "my.csv"), folder / "my.parquet")
    return folder


@pytest.fixture
def train(folder, monkeypatch, capsys):
    """Runs the program in the folder; returns its exit code and what it said."""

    def run(*options, data=("my.csv",), columns=COLUMNS, model="model", quick=QUICK):
        arguments = ["--data", *data, *(("--columns", columns) if columns else ())]
        arguments += [*(("--model", model) if model else ()), *quick, *options]
        arguments += ["--compilation-cache", str(folder / "xla")]
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["launch/train.py", *map(str, arguments)])
        try:
            code = main()
        except SystemExit as stop:  # the command line's own errors
            code = stop.code
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return run


def losses(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


@pytest.fixture
def trained(folder, train, caplog):
    """The losses of ten steps on the CSV file, evaluated on held-out rows; run once."""
    workdir = folder / "runs" / "my"
    caplog.set_level("INFO")
    if not workdir.exists():
        code, said = train("--eval-data", "held_out.csv")
        assert code == 0, said
        assert "mrr" in caplog.text and "; embed with --model runs/my" in caplog.text
    return losses(workdir)


def test_ten_steps_on_a_csv_file(folder, trained):
    assert list(trained) == list(range(1, 11))
    config = read_manifest(str(folder / "runs" / "my")).config
    assert (config.model.towers, config.model.trainable.alpha) == ((), 16)
    assert config.optimizer.warmup_of(10) == 1
    assert config.data.sources[0].paths == ("my.csv",)


@pytest.mark.parametrize("name", ["my.csv", pytest.param("my.parquet", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_with_the_same_losses(
    folder, train, trained, tmp_path, monkeypatch, name
):
    expected = trained
    if name != "my.csv":  # not all files know how long their rows are, by which examples are dealt
        code, said = train("--workdir", str(tmp_path / "whole"), data=(name,))
        assert code == 0, said
        expected = losses(tmp_path / "whole")
        assert list(expected.values()) == pytest.approx(list(trained.values()), rel=1e-5)

    original = ContrastiveLoader.__iter__

    def iterate_until_killed(self):
        for index, batch, stats in original(self):
            if index == 5:
                while not (tmp_path / "run" / "checkpoints" / "4").is_dir():  # in the background
                    time.sleep(0.05)
                raise RuntimeError("killed")
            yield index, batch, stats

    options = ("--workdir", str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(ContrastiveLoader, "__iter__", iterate_until_killed)
        code, said = train(*options, data=(name,))
        assert (code, "killed" in said) == (1, True), said
    assert len(losses(tmp_path / "run")) < 10
    code, said = train(*options, data=(name,))
    assert code == 0, said
    assert losses(tmp_path / "run") == expected
    changed = (folder / name).read_bytes()
    try:
        table = pq.read_table(folder / name) if name == "my.parquet" else None
        if table is None:
            (folder / name).write_bytes(changed.replace(b"fox", b"cat"))
        else:
            pq.write_table(table.slice(1), folder / name)
        code, said = train(*options, data=(name,))
        assert (code, "the data of the run in" in said) == (2, True), said
    finally:
        (folder / name).write_bytes(changed)


def test_other_held_out_data_are_refused_before_training(folder, train, trained):
    text = (folder / "held_out.csv").read_text().replace("fox", "cat")
    (folder / "other.csv").write_text(text)
    code, said = train("--eval-data", "other.csv")
    assert (code, "is measured on other held-out data: evaluation.source" in said) == (2, True)


def test_a_finished_run_says_what_it_was_found_to_be(folder, train, trained, caplog):
    code, said = train("--workdir", "runs/my")
    assert code == 0, said
    last = read_metrics(folder / "runs" / "my" / "metrics.jsonl")[-1]
    told = f"last: step 10, evaluated before: recall@1 {last['recall@1']:.3f}, recall@10"
    assert (last["step"], last["kind"]) == (10, "eval")
    assert told in caplog.text and "not evaluated" not in caplog.text
    assert "nothing left to do" in said and "compiling" not in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": "qury=anchor,answer=positive"}, "did you mean 'query'? It has ['query', "),
        ({"columns": "query=anchr,answer=positive"}, "did you mean 'anchor'? Roles are ['anchor'"),
        ({"columns": "query,answer=positive"}, "--columns query: expected COLUMN=ROLE"),
        ({"columns": ""}, "say it: --columns query=anchor,answer=positive"),
        ({"model": ""}, "--data needs the model to train: --model"),
        ({"data": ("your.csv",)}, "your.csv: no such file"),
        ({"data": ("*.tsv",)}, "*.tsv: no file matches"),
        ({"options": ("--eval-data", "none.csv")}, "none.csv: no such file"),
        ({"options": ("--config", "CONFIG")}, "--data is for a config of one stage"),
        ({"options": ("--optimizer.warmup-steps", "11")}, "warmup_steps=11 is longer than the run"),
        ({"options": ("--optimizer.warmup-steps", "1.5")}, "warmup_steps=1.5 must be a number"),
        ({"data": ("bad.csv",)}, "bad.csv:3: positive is empty (column 'answer')"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(folder, train, tmp_path, monkeypatch, change, message):
    def read_weights(*_):
        raise AssertionError("weights are read and programs compiled")

    monkeypatch.setattr(setup, "initial_state", read_weights)
    (folder / "bad.csv").write_text("query,answer,wrong\na,b,c\nd,,f\n")
    options, quick = change.pop("options", ()), QUICK
    if "CONFIG" in options:
        config = str(main.__wrapped__.__globals__["CONFIGS"] / "quickstart.py")
        options, quick = ("--config", config), ()
    code, said = train("--workdir", str(tmp_path / "run"), *options, quick=quick, **change)
    assert (code, message in said) == (2, True), said
    assert not (tmp_path / "run" / "config.json").exists()


def test_bad_rows_are_left_out_if_asked_for(folder, train, tmp_path, monkeypatch, caplog):
    class Enough(RuntimeError):
        pass

    def stop(*_):
        raise Enough("enough")

    monkeypatch.setattr(setup, "initial_state", stop)
    text = (folder / "my.csv").read_text()
    (folder / "late.csv").write_text(text + "d,,f\n")
    options = ("--workdir", str(tmp_path / "run"), "--data.media.on-error", "skip")
    code, said = train(*options, data=("late.csv",))
    assert (code, "enough" in said) == (1, True), said
    assert "left out: late.csv:42: positive is empty" in caplog.text
