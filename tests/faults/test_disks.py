"""Full disks: one line that names the file and the bytes, and nothing that was whole is lost."""

import re
import shutil

import pytest

from lco_jax.runtime import disks as disk_errors
from lco_jax.runtime.disks import DiskError, replace_text, writing
from lco_jax.train.metrics import read_metrics
from tests.faults import disks, runner, training

NUMBERS = r"\d[\d,]* bytes are needed, \d[\d,]* bytes are free|\d[\d,]* bytes are free"


@pytest.fixture(params=["small disk", "short files"])
def full(request, tmp_path):
    """A folder into which little can be written."""
    if request.param == "small disk":
        with disks.small(tmp_path / "disk", disks.LIMIT_BYTES) as mounted:
            if not mounted:
                pytest.skip("only root mounts a disk; the limit of files is tested instead")
            yield tmp_path / "disk"
    else:
        (tmp_path / "disk").mkdir()
        with disks.no_longer_files(disks.LIMIT_BYTES // 2):
            yield tmp_path / "disk"


@pytest.mark.parametrize("writer", disks.WRITERS)
def test_every_writer_names_file_and_bytes(writer, full):
    with pytest.raises(DiskError) as caught:
        disks.WRITERS[writer](full)
    assert re.search(f"cannot write {full}.*: .*({NUMBERS}), make room", str(caught.value))
    assert "\n" not in str(caught.value)


def test_what_was_whole_stays(full):
    file = full / "file.json"
    replace_text(file, "before")
    with pytest.raises(DiskError):
        replace_text(file, "x" * (2 * disks.LIMIT_BYTES))
    assert file.read_text() == "before"
    assert list(full.iterdir()) == [file]
    with pytest.raises(DiskError):
        disks.WRITERS["metrics"](full)
    steps = [record["step"] for record in read_metrics(full / "metrics.jsonl")]
    assert steps == list(range(len(steps)))
    assert (full / "metrics.jsonl").read_bytes().endswith(b"}\n")


def test_other_errors_stay_as_they_are(tmp_path):
    for error in (PermissionError(13, "no"), FileNotFoundError("gone"), ValueError("5 bytes")):
        with pytest.raises(type(error)) as caught, writing(tmp_path):
            raise error
        assert caught.value is error
    with pytest.raises(DiskError, match=r"x: Input/output error; "), writing("x"):
        raise OSError(5, "Input/output error")
    with pytest.raises(DiskError, match="quota"), writing("gs://bucket/x"):
        raise RuntimeError("RESOURCE_EXHAUSTED: quota")
    assert disk_errors.free_bytes("gs://bucket/x") is None


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return training.write_config(tmp_path_factory.mktemp("config"))


def run(config, workdir, max_file_bytes=None):
    return runner.run(
        *(training.train, config, workdir, max_file_bytes),
        names=[str(workdir)],
        limit_s=600,
        limit_bytes=8 << 30,
    )


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    outcome = run(config, workdir)
    assert outcome.kind == "right", outcome
    return training.results(workdir)


def on_small_disk(config, folder, num_bytes):
    """How a run on a disk of so many bytes ends, and what it has saved."""
    with disks.small(folder / "disk", num_bytes) as mounted:
        # Where no disk can be mounted, the report does not fit.
        outcome = run(config, folder / "disk" / "run", None if mounted else 6000)
        if (folder / "disk" / "run").exists():  # of the smallest disks not even that fits
            shutil.copytree(folder / "disk" / "run", folder / "run", dirs_exist_ok=True)
    return outcome


def test_a_run_on_a_full_disk_ends_and_goes_on_elsewhere(config, tmp_path):
    outcome = on_small_disk(config, tmp_path, 96 << 10)
    assert outcome.kind == "refused", outcome
    assert re.search(NUMBERS, outcome.said)
    assert outcome.said.count("error: ") == 1
    steps = [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()]
    assert any(step.isdecimal() for step in steps)
    outcome = run(config, tmp_path / "run")
    assert outcome.kind == "right", outcome
    measured, _ = training.results(tmp_path / "run")
    assert [step for kind, step, _ in measured if kind == "train"] == [1, 2, 3, 4, 5, 6]
    assert [step for kind, step, _ in measured if kind == "eval"] == [0, 3, 6]


@pytest.mark.slow
def test_disks_of_any_size(config, undisturbed, tmp_path):
    """Wherever a run is when its disk is full."""
    outcomes = []
    for kib in (*range(4, 132, 8), 160, 192, 256, 320, 400):
        folder = tmp_path / str(kib)
        outcome = on_small_disk(config, folder, kib << 10)
        outcomes.append((kib, outcome))
        if outcome.kind == "refused":
            assert re.search(NUMBERS, outcome.said), outcome
            outcomes.append((kib, run(config, folder / "run")))
            assert training.results(folder / "run") == undisturbed
    print(len(outcomes), "runs:", runner.count(outcome for _, outcome in outcomes))
    assert not runner.bad(outcomes)
