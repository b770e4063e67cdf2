"""An item as the model reads it: tokens, and the media whose features replace some of them."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

from lco_jax.data.encode.positions import Grid
from lco_jax.models.tokens import Kind as Kind


class Visual(NamedTuple):
    """An image or a video, as the vision tower reads it."""

    patches: UInt8[np.ndarray, "p W"]
    """Levels of red, green and blue; of a still image those of one frame (see `Patches`)."""
    grid: Grid
    statistics: Float32[np.ndarray, "2 3"]
    """Mean and standard deviation with which the device normalises them."""
    order: Int32[np.ndarray, "n"] | None = None
    """Of each token that stands for it the feature, counted within it; -1: the one that the tower
    adds to those of all patches (None: a token for each feature, in turn)."""
    content_hash: int | None = None
    """Of the file that it was read from (None: its patches are hashed)."""


class Audio(NamedTuple):
    """Audio, as the audio tower reads it."""

    chunks: Float32[np.ndarray, "k M T"]
    """Log-mel frames in chunks of equal length, the last one padded."""
    frames: Int32[np.ndarray, "k"]
    """How many frames of each chunk are real."""


class Known(NamedTuple):
    """A medium whose features are known: a tower has seen it before."""

    features: Float32[np.ndarray, "n D"]
    grid: Grid | None
    """Of a visual; None for audio."""


Content = Visual | Audio | Known


class Medium(NamedTuple):
    """A medium of an item and the tokens of the item that stand for its features."""

    content: Content
    places: Int[np.ndarray, "n"]
    """Indices in the item's tokens, in the order of the features."""


class Encoded(NamedTuple):
    """An item as the decoder reads it, without the head that all items share."""

    tokens: Int32[np.ndarray, "S"]
    hash: np.uint64
    """Of what the item says; equal for equal items, in every run. Images of files are equal if the
    files are, byte for byte."""
    positions: Int32[np.ndarray, "S 3"] | None = None
    """Time, height and width of each token, counted from the end of the head (None: text, whose
    axes all count the tokens)."""
    media: tuple[Medium, ...] = ()
    targets: Int32[np.ndarray, "S"] | None = None
    """For each token the one that should follow it; -1 where none is learned (None: nowhere)."""

    @property
    def visuals(self) -> list[Medium]:
        """The images and videos."""
        return [medium for medium in self.media if isinstance(medium.content, Visual)]

    @property
    def audios(self) -> list[Medium]:
        """The audio."""
        return [medium for medium in self.media if isinstance(medium.content, Audio)]

    @property
    def known(self) -> list[Medium]:
        """The media of either kind whose features are known."""
        return [medium for medium in self.media if isinstance(medium.content, Known)]


def as_arrays(rows: Sequence[Sequence[int]]) -> list[Int32[np.ndarray, "S"]]:
    """The tokens of each item as an array: views of one, which takes a third of the time."""
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64).tolist()
    flat = np.fromiter(itertools.chain.from_iterable(rows), np.int32, ends[-1] if ends else 0)
    return [flat[start:end] for start, end in itertools.pairwise([0, *ends])]


def hashes_of(texts: Iterable[str]) -> list[np.uint64]:
    """What items say that have nothing but these texts."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    return list(np.frombuffer(b"".join(digests), ">u8").astype(np.uint64))
