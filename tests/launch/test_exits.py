"""Exit codes by who raised: bad usage is not started again, a bug is, and shows its traceback."""

import json
from pathlib import Path

import numpy as np
import pytest

from lco_jax.cli.configs import load_config
from lco_jax.cli.exits import FAILED, USAGE, program
from lco_jax.config import DataConfig, JsonlSource, MeshConfig
from lco_jax.config.checks import require


def _in_c():
    np.zeros(3).reshape(2, 2)  # numpy leaves no frame in the traceback


def _in_python():
    json.loads("{")


def _of_a_caller():
    raise ValueError("raised outside the package")


@pytest.mark.parametrize("act", [_in_c, _in_python, _of_a_caller])
def test_a_value_error_of_a_library_is_a_bug_with_a_traceback(act):
    with pytest.raises(ValueError):
        program(act)()


def test_a_value_error_of_numpy_called_by_the_package_is_a_bug():
    """The innermost frame is the package's own: the library is written in C."""
    code = compile(
        "import numpy\nnumpy.zeros(3).reshape(2, 2)", require.__code__.co_filename, "exec"
    )
    with pytest.raises(ValueError, match="reshape"):
        program(lambda: exec(code))()


@pytest.mark.parametrize(
    "act",
    [
        lambda: require(False, "temperature=0 must be positive"),
        lambda: MeshConfig(3).resolve(8),
        lambda: DataConfig(sources=(JsonlSource("a.jsonl"),), batch_size=0),
        lambda: Path("/no/such/file").read_text(),
    ],
)
def test_bad_usage_exits_with_2_and_says_why(act, capsys):
    assert program(act)() == USAGE
    assert "error: " in capsys.readouterr().err


def test_a_config_that_raises_is_bad_usage_and_is_named(tmp_path, capsys):
    file = tmp_path / "wrong.py"
    file.write_text("def get_config():\n    return 1 / 0\n")
    assert program(lambda: load_config(file))() == USAGE
    assert f"{file}: ZeroDivisionError" in " ".join(capsys.readouterr().err.split())


def test_a_failure_of_the_run_exits_with_1(capsys):
    def fail():
        raise RuntimeError("the disk is gone")

    assert program(fail)() == FAILED
    assert capsys.readouterr().err == "error: the disk is gone\n"
