"""The fault runner sees what it is there to see."""

import pytest

from tests.faults import runner, trial


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file").write_text("right")
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (trial.read, "right"),
        (trial.have_a_bug, "traceback"),
        (trial.allocate, "traceback"),
        (trial.hang, "hang"),
        (trial.crash, "killed"),
    ],
)
def test_kinds(act, kind, path):
    limit_s = 2 if act is trial.hang else runner.LIMIT_S
    found = runner.run(act, path, names=[path.name], expected=trial.is_right, limit_s=limit_s)
    assert found.kind == kind, found
    assert kind != "killed" or ("SIG" in found.said and "in crash" in found.said)


def test_errors_and_results(path):
    path.write_text("something else")
    outcomes = [runner.run(trial.read, path, names=[path.name], expected=trial.is_right)]
    path.unlink()
    outcomes += [runner.run(trial.read, path, names=[name]) for name in (path.name, "other")]
    assert runner.count(outcomes) == {"wrong": 1, "refused": 1, "nameless": 1}
    assert len(runner.bad(enumerate(outcomes))) == 2
