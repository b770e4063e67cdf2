"""What vectors depend on besides their items, and a name for it."""

import hashlib
from typing import Any

import jax

from lco_jax.runtime.code_digest import code_digest
from lco_jax.weights.identity import Contents


def identity_of(
    contents: Contents, dtype: str, truncate_dim: int | None, recipe: dict[str, Any], prompt: str
) -> tuple:
    """Contents of the model's files, settings, and the code that computes: the same files at
    another place are the same model.

    Args:
        truncate_dim: dimensions that are kept (None: all).
        recipe: of the processor, which says how items are read.
        prompt: that of all items.

    Raises:
        ChangedFilesError: the files have changed since the model was opened.
    """
    more = (prompt, jax.config.jax_default_matmul_precision)
    return (
        contents.digest,
        dtype,
        truncate_dim,
        recipe,
        code_digest(),
        *(value for value in more if value),
    )


def revision_of(identity: tuple) -> str:
    """A hash of it, which vectors are kept under."""
    return hashlib.blake2b(repr(identity).encode(), digest_size=10).hexdigest()


def of_whole_vectors(identity: tuple) -> tuple:
    """The same of vectors that are not cut."""
    contents, dtype, _, *more = identity
    return (contents, dtype, None, *more)
