"""Python's search for garbage, kept to what is new."""

import contextlib
import gc
from collections.abc import Iterator

_NEW_OBJECTS = 20_000
"""After which garbage is looked for; a step of texts makes as many that are none."""


@contextlib.contextmanager
def collecting_what_is_new() -> Iterator[None]:
    """Within, garbage is looked for among the objects that came since: thousands of records a step
    make Python look often, and going through all that JAX holds took a third of the time of a batch
    of texts.
    """
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
