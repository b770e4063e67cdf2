"""Whether what a program hands over is one input or many."""

import os
from collections.abc import Iterator, Mapping, MappingView, Sequence, Set
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
    """The inputs one by one; texts of numpy become texts.

    Raises:
        ValueError: they are held in what has no order, or yields something else than its values (a
            table yields the names of its columns).
    """
    if is_single(inputs):
        return [inputs.item() if isinstance(inputs, np.ndarray) and not inputs.ndim else inputs]
    if isinstance(inputs, list | tuple):
        return list(inputs)
    _refuse_containers(inputs)
    # Of numpy, and columns of pandas.
    return inputs.tolist() if hasattr(inputs, "tolist") else list(inputs)


def is_message(value: Any) -> bool:
    """Whether a value is a chat message."""
    return isinstance(value, Mapping) and "role" in value and "content" in value


def _refuse_containers(inputs: Any) -> None:
    name = type(inputs).__name__
    if hasattr(inputs, "columns"):
        advice = "is a table; give one column (df['text'].tolist()) or rows (df.to_dict('records'))"
    elif isinstance(inputs, MappingView):
        advice = "is a view of a dict; give list(...) of it if its order is the one that you want"
    elif isinstance(inputs, Set):
        advice = "has no order in which vectors could come; give a list"
    elif hasattr(inputs, "read") or hasattr(inputs, "readline"):
        advice = (
            "is an open file; give file.read() of a medium, its path, or "
            "file.read().splitlines() for a text a line"
        )
    elif hasattr(inputs, "tolist") or isinstance(inputs, Sequence | Iterator):
        return
    elif hasattr(inputs, "keys"):
        advice = "yields its keys; give list(...) of its values"
    else:
        return
    raise ValueError(f"inputs of type {name}: it {advice}")
