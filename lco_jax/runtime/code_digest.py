"""Which code computes: a digest of this package's sources and of the versions beneath it."""

import functools
import hashlib
from importlib import metadata
from pathlib import Path

_ROOMS = ("config", "runtime", "nn", "models", "weights", "data", "objectives", "embed")
"""Of the package, what has a part in a vector or in a compiled program."""
_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "transformers", "tokenizers")


@functools.cache
def code_digest() -> str:
    """A hash that is another one as soon as the code that computes vectors is, even by a comment:
    what was computed or compiled under another digest is not to be trusted.

    The place of the package is no part of it: a checkout and an installation agree.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=10)
    for room in _ROOMS:
        for file in sorted((package / room).rglob("*.py")):
            digest.update(file.relative_to(package).as_posix().encode() + b"\0")
            digest.update(hashlib.blake2b(file.read_bytes()).digest())
    for name in _LIBRARIES:
        digest.update(f"{name}=={metadata.version(name)}".encode())
    return digest.hexdigest()
