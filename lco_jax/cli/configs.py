"""Config files: Python files with a function that returns a config."""

import difflib
import importlib.util
from pathlib import Path
from typing import Any

from lco_jax.config import Stage, Stages, TrainConfig

CONFIGS = Path(__file__).parents[1] / "configs"
"""Those that are shipped; in a checkout it is a link to `configs/` of the repository."""


def find_config(name: Path | str) -> Path:
    """The file of a config, given as a path, or by its name if it is a shipped one.

    Raises:
        FileNotFoundError: there is neither; the message names those that are close.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = CONFIGS / path.with_suffix(".py").name
    if path.parent == Path(".") and path.suffix in ("", ".py") and shipped.is_file():
        return shipped
    known = sorted(file.stem for file in CONFIGS.glob("*.py"))
    close = difflib.get_close_matches(path.stem, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"shipped are {', '.join(known)}"
    raise FileNotFoundError(f"no config file {name}; {hint}")


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
    path = find_config(path)
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
