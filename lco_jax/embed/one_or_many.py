"""Whether what a program hands over is one input or many."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from lco_jax.data.records import Item
from lco_jax.embed.arrays import is_array
from lco_jax.embed.decoders import is_decoder


def is_single(inputs: Any) -> bool:
    """Whether inputs are one input: no sequence, or the messages of one conversation."""
    if isinstance(inputs, list | tuple):
        return bool(inputs) and all(map(is_message, inputs))
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 0 or inputs.dtype.kind not in "UOT"
    single = str | bytes | bytearray | memoryview | Item | Mapping | Image.Image | os.PathLike
    if isinstance(inputs, single) or is_array(inputs) or is_decoder(inputs):
        return True
    return not hasattr(inputs, "__iter__")


def as_sequence(inputs: Any) -> Sequence[Any]:
    """The inputs one by one; texts of numpy become texts."""
    if is_single(inputs):
        return [inputs.item() if isinstance(inputs, np.ndarray) and not inputs.ndim else inputs]
    return inputs.tolist() if isinstance(inputs, np.ndarray) else list(inputs)


def is_message(value: Any) -> bool:
    """Whether a value is a chat message."""
    return isinstance(value, Mapping) and "role" in value and "content" in value
