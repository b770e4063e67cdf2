"""Whether stored numbers are numbers: a flipped bit or a run that diverged leaves NaN."""

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from lco_jax.weights.layout import copy_tiled

_BLOCK_BYTES = 1 << 19
"""What is copied at a time: it is still in a core's cache when it is looked at."""
_MIN_ROWS = 128
"""Of such a block; fewer would be slow to copy from a matrix that lies transposed."""
_INTEGERS = {2: (np.int16, np.uint16), 4: (np.int32, np.uint32), 8: (np.int64, np.uint64)}
"""By the bytes of a value."""


def count_not_finite(values: Shaped[np.ndarray, "*shape"]) -> int:
    """How many values of a contiguous array are NaN or infinite (of integers: none).

    As integers, floats of one sign are ordered, with infinity and then NaN at the end: the largest
    signed one tells of positive numbers, the largest unsigned one of negative numbers. This is
    several times faster than to ask each.
    """
    dtype = values.dtype
    if dtype.itemsize not in _INTEGERS or not (dtype.kind == "f" or dtype == ml_dtypes.bfloat16):
        return 0
    views = []
    for integers, first in zip(_INTEGERS[dtype.itemsize], (np.inf, -np.inf), strict=True):
        view = values.reshape(-1).view(integers)
        views.append((view, np.array(first, dtype).view(integers)[()]))
    found = [view >= first for view, first in views if view.size and view.max() >= first]
    return sum(int(np.count_nonzero(where)) for where in found)


def copy_finite(
    target: Shaped[np.ndarray, "*shape"], source: Shaped[np.ndarray, "*shape"], where: str
) -> None:
    """`target[...] = source`.

    Args:
        target: contiguous; may be of another dtype.
        where: what errors call the source.

    Raises:
        ValueError: a value is NaN or infinite, or too large for the dtype of `target`.
    """
    rows = len(target) if target.ndim else 1
    row_bytes = max(target.nbytes // max(rows, 1), 1)
    step = max(_BLOCK_BYTES // row_bytes, _MIN_ROWS)
    count = 0
    for start in range(0, rows, step):
        block = (slice(start, start + step),) if target.ndim else ()
        with np.errstate(over="ignore", invalid="ignore"):
            copy_tiled(target[block], source[block])
        count += count_not_finite(target[block])
    if not count:
        return
    of = f"{where}: {count} of {target.size} values"
    if count_not_finite(np.ascontiguousarray(source)):
        raise ValueError(
            f"{of} are NaN or infinite: the run that wrote them diverged, or the file is damaged; "
            "take an earlier checkpoint of it, or fetch it again"
        )
    raise ValueError(f"{of} are too large for {target.dtype}; load the model as float32")
