"""Python's search for garbage, kept to what is new."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collecting_what_is_new() -> Iterator[None]:
    """Within, garbage is looked for among the objects that came since: thousands of records a step
    make Python look often, and going through all that JAX holds took a third of the time of a batch
    of texts.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
