"""`launch/evaluate.py`: offline tasks, mteb tasks, what is kept, and what is wrong."""

import json
import sys

import mteb
import pytest

from lco_jax.cli.evaluate import main
from tests import tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny", num_layers=1).folder


@pytest.fixture
def evaluate(checkpoint, tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level("INFO")

    def run(*arguments):
        options = ("--model", checkpoint, "--output", tmp_path / "out", *arguments)
        monkeypatch.setattr(sys, "argv", ["launch/evaluate.py", *map(str, options)])
        code = main()
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err + caplog.text).split())

    return run


def test_an_offline_task_and_one_of_mteb(evaluate, tmp_path, monkeypatch):
    mock = mteb.mocks.MockSTSTask
    monkeypatch.setattr(mteb, "get_task", lambda name: mock())
    code, said = evaluate("--tasks", "EmojiSimilarity", "MockSTSTask", "--profile", "mteb")
    assert code == 0, said
    assert "EmojiSimilarity" in said and "MockSTSTask" in said and "profile mteb" in said
    offline = tmp_path / "out" / "offline" / "EmojiSimilarity.json"
    (results,) = (tmp_path / "out" / "results").rglob("MockSTSTask.json")
    record = json.loads(results.read_text())
    assert record["mteb_version"] == mteb.__version__
    assert (results.parent / "model_meta.json").exists()

    times = [file.stat().st_mtime_ns for file in (offline, results)]
    monkeypatch.setattr(mock, "evaluate", None)  # a finished task is not run again
    code, said = evaluate("--tasks", "EmojiSimilarity", "MockSTSTask", "--profile", "mteb")
    assert code == 0, said
    assert [file.stat().st_mtime_ns for file in (offline, results)] == times


def test_a_failing_task_is_named(evaluate, monkeypatch):
    def fail(self, *_, **__):
        raise RuntimeError("the data is gone")

    monkeypatch.setattr(mteb, "get_task", lambda name: mteb.mocks.MockSTSTask())
    monkeypatch.setattr(mteb.mocks.MockSTSTask, "load_data", fail)
    code, said = evaluate("--tasks", "MockSTSTask")
    assert (code, "MockSTSTask failed: the data is gone" in said) == (1, True), said


def test_unknown_task(evaluate):
    code, said = evaluate("--tasks", "STS12345")
    assert (code, "STS12345 is no task or benchmark of mteb" in said) == (2, True), said


def test_without_mteb(evaluate, monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    code, said = evaluate("--tasks", "STS12")
    assert (code, "install the extra: pip install -e '.[eval]'" in said) == (2, True), said
