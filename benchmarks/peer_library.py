"""What comparisons with representax share: whether it is there, and the static shapes it gets."""

import importlib.util
from typing import Literal

from lco_jax.data.pack.rounding import round_rows

_MULTIPLE = 8
"""Of which all static sizes are multiples."""
Rematerialization = Literal["none", "selective", "full"]
"""What it computes again in the backward pass."""


def require_representax() -> None:
    """Check before anything is measured that representax can be imported.

    Raises:
        ModuleNotFoundError: it cannot; the message says how to install it.
    """
    missing = [
        name for name in ("representax", "equinox") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ModuleNotFoundError(
            f"no module named {' nor '.join(missing)}: this comparison needs "
            "`pip install -r requirements-benchmarks.txt`, from the root of the repository"
        )


def static_size(count: int) -> int:
    """The smallest admitted size that holds `count`: there are eight between powers of two, so few
    programs are compiled, and less than an eighth of a size is padding."""
    return _MULTIPLE * round_rows(-(-count // _MULTIPLE))
