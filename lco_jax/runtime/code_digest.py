"""Which code computes here: what kept vectors and compiled programs are only valid for."""

import functools
import hashlib
import importlib.metadata
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
ROOMS = ("config", "runtime", "nn", "models", "weights", "data", "objectives", "train", "embed")
"""Of this package, those that have a part in a vector or in a step of training."""
FILES = ("lab/media_texts.py",)
"""Of the other rooms: what is given to encoders from there."""
LIBRARIES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "ml_dtypes"),
    *("transformers", "tokenizers", "jinja2", "pillow", "av", "soundfile", "soxr"),
)
"""Those that compute, make tokens, or decode media."""


@functools.cache
def code_digest(package: Path = _PACKAGE) -> str:
    """A hash of the sources of the rooms that compute and of the versions of libraries; the same
    wherever the package is installed.

    Every byte of a source counts, comments as well: what was kept is computed again after any
    change there, which costs time, and never the other way.
    """
    digest = hashlib.blake2b(digest_size=10)
    for name, content in sources(package):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    digest.update(repr(versions()).encode())
    return digest.hexdigest()


def sources(package: Path) -> list[tuple[str, bytes]]:
    """Names and contents of the sources that compute, in a fixed order."""
    files = [file for room in ROOMS for file in (package / room).rglob("*.py")]
    files += [package / file for file in FILES]
    named = {file.relative_to(package).as_posix(): file for file in files}
    return [(name, named[name].read_bytes()) for name in sorted(named)]


def versions() -> dict[str, str]:
    """Of the libraries that compute."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
