"""A step of training on its way through the loader: its examples, and what loading it took."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.pack.batch import Shape


class Step(NamedTuple):
    """The examples of a step that a process has, before they are packed."""

    step: int
    numbers: Int64[np.ndarray, "C I"]
    """Their places in the global batch."""
    items: list[Encoded | None]
    """By chunk, example and role."""
    unreadable: int


@dataclass(frozen=True)
class LoadStats:
    """What loading a step took; counts are of this process."""

    shape: Shape
    real_tokens: int
    slots: int
    waited_s: float
    """Time for which the caller had to wait."""
    real_patches: float | None = None
    """Share of the patches of the budgets that hold pixels (None: no images)."""
    unreadable: int = 0
    """Items that could not be read."""
