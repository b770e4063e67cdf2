"""Config files: Python files with a function that returns a config."""

import importlib.util
from pathlib import Path
from typing import Any

from lco_jax.config import Stage, Stages, TrainConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def load_config(path: Path) -> TrainConfig | Stages:
    """The config of a file with `get_config()`: of one stage, or of several.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file has no `get_config`, or it returns something else.
    """
    return load_file(path, "get_config", (TrainConfig, Stages))


def load_file(path: Path, function: str, kinds: tuple[type, ...]) -> Any:
    """What the function of a Python file returns, which is of one of `kinds`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file has no such function, it raises, or it returns something else.
    """
    if not path.is_file():
        known = ", ".join(sorted(file.name for file in CONFIGS.glob("*.py")))
        raise FileNotFoundError(f"no config file {path}; configs/ has {known}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = getattr(module, function)() if hasattr(module, function) else None
    except Exception as error:  # it is a program, and may raise anything
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    if isinstance(found, tuple) and all(isinstance(stage, Stage) for stage in found):
        found = Stages(found)
    if not isinstance(found, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{path} must define {function}() that returns {names}")
    return found
