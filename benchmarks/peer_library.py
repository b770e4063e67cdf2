"""What comparisons with representax share: whether it is there, and the static shapes it gets."""

import importlib.util
from typing import Literal

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
    step = 1 << max(3, count.bit_length() - 4)
    return -(-count // step) * step
