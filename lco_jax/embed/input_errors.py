"""Which input an error is about."""

import contextlib
from collections.abc import Iterator, Sequence

from lco_jax.data.media.errors import MediaError


def placed(error: ValueError, index: int) -> ValueError:
    """The error, which then knows the place of its item."""
    error.item_index = index
    return error


@contextlib.contextmanager
def moved(places: Sequence[int]) -> Iterator[None]:
    """Within, items are some of others: `places` says which."""
    try:
        yield
    except ValueError as error:
        index = getattr(error, "item_index", None)
        if index is not None:
            placed(error, places[index])
        raise


@contextlib.contextmanager
def numbered() -> Iterator[None]:
    """Errors of items that are raised within say the number of the input.

    Raises:
        ValueError: an error of an item, or a MediaError where it is one.
    """
    try:
        yield
    except ValueError as error:
        index = getattr(error, "item_index", None)
        if index is None:
            raise
        raise of_field(error, f"input {index}") from error


def of_field(error: ValueError, field: str) -> ValueError:
    """The error, whose message begins with the input that it is about."""
    text = str(error)
    rest = text.removeprefix(field)
    if rest != text and not rest[:1].isdigit():
        return error
    kind = type(error) if isinstance(error, MediaError) else ValueError
    return kind(f"{field}: {text}")
