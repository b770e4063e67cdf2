"""`launch/evaluate.py`: offline tasks, mteb tasks, what is kept, and what is wrong."""

import json
import sys

import mteb
import pytest

from lco_jax.cli.evaluate import main
from tests import tiny
from tests.evaluate.comparators import register


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
    (offline,) = (tmp_path / "out" / "offline" / "lco_jax__tiny").rglob("EmojiSimilarity.json")
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


def test_a_model_of_mteb_beside_ours(evaluate, monkeypatch, tmp_path):
    monkeypatch.setattr(mteb, "get_task", lambda name: getattr(mteb.mocks, name)())
    register(monkeypatch)
    tasks = ("--tasks", "EmojiSimilarity", "MockSTSTask")
    code, said = evaluate(*tasks)
    assert code == 0, said
    theirs = ("--model", "mteb:tests/static", "--batch-size", "2")
    code, said = evaluate(*tasks, "EmojiPicturesI2T-en", "MockImageClusteringTask", *theirs)
    assert code == 0, said
    assert "tests/static of mteb, revision r1, reads text, without instructions" in said
    assert "2 tasks need image, which is not read here: EmojiPicturesI2T-en, MockImage" in said
    assert "tests/static (r1)" in said and "tiny (" in said  # a column of each
    for kind, name in (("offline", "EmojiSimilarity"), ("results", "MockSTSTask")):
        files = sorted((tmp_path / "out" / kind).rglob(f"{name}.json"))
        assert [file.parent.parent.name for file in files] == ["lco_jax__tiny", "tests__static"]
        assert files[1].parent.name == "r1"
        assert json.loads((files[1].parent / "model_meta.json").read_text())["revision"] == "r1"
    monkeypatch.setattr(mteb.mocks.MockSTSTask, "evaluate", None)  # not run again
    assert evaluate(*tasks, *theirs)[0] == 0


def test_a_folder_for_each_model_of_mteb(evaluate, monkeypatch, tmp_path):
    register(monkeypatch, "tests/static (small)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--model", "mteb:tests/static (small)"])
    sys.argv += ["--tasks", "EmojiSimilarity"]
    assert main() == 0
    folder = tmp_path / "evaluations" / "tests__static_(small)"
    assert (folder / "offline" / folder.name / "r1" / "EmojiSimilarity.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--profile", "mteb", "--checkpoint", "3", "--mesh.fsdp", "2"),
            "--checkpoint, --profile, --mesh: this is for models that this program runs",
        ),
        (("--batch-size", "0"), "batch_size"),
        (("--model", "mteb:tests/statc"), "did you mean mteb:tests/static"),
        (("--model", "mteb:mongodb/voyage-multimodal-3"), "variable VOYAGE_API_KEY"),
        (("--model", "mteb:tests/reranker"), "of type cross-encoder"),
        (("--model", "mteb:tests/lacking"), "install it: pip install a_library_of_nobody"),
    ],
)
def test_what_does_not_go_with_a_model_of_mteb(evaluate, monkeypatch, options, message):
    def load(*_, **__):
        raise ModuleNotFoundError(
            "No module named 'a_library_of_nobody'", name="a_library_of_nobody"
        )

    monkeypatch.delenv("VOYAGE_API_KEY", raising=False)
    register(monkeypatch)
    register(monkeypatch, "tests/reranker", load, model_type=["cross-encoder"])
    register(monkeypatch, "tests/lacking", load)
    code, said = evaluate("--tasks", "EmojiSimilarity", "--model", "mteb:tests/static", *options)
    assert (code, message in said) == (2, True), said


def test_what_is_of_models_of_mteb_alone(evaluate, monkeypatch):
    code, said = evaluate("--batch-size", "2")
    assert (code, "--tokens-per-batch bounds what a device computes" in said) == (2, True), said
    monkeypatch.setitem(sys.modules, "mteb", None)
    code, said = evaluate("--model", "mteb:tests/static")
    assert (code, "install the extra: pip install -e '.[eval]'" in said) == (2, True), said


def test_tasks_of_mteb_that_ours_does_not_read_are_left_out(evaluate, monkeypatch):
    monkeypatch.setattr(mteb, "get_task", lambda name: mteb.mocks.MockImageClusteringTask())
    code, said = evaluate("--tasks", "MockImageClustering")
    assert (code, "1 tasks need image, which is not read here: MockImage" in said) == (0, True), (
        said
    )
