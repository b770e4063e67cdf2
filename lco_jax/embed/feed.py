"""What an encoder computes next: read, tokenised, packed and copied to the devices ahead of it."""

import collections
import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Int32, Int64

from lco_jax.config import Memory
from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.encode.processor import Processor
from lco_jax.data.errors import RecordError
from lco_jax.data.pack.batch import Batch
from lco_jax.data.pack.fits import fitting
from lco_jax.data.pack.media_stream import MediaStream
from lco_jax.data.pack.shares import deal
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.pack.stream import Packed, pack_texts
from lco_jax.data.records import Item
from lco_jax.embed.input_errors import placed
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime import processes
from lco_jax.runtime.axes import BATCH_AXES

_T = TypeVar("_T")

_MEDIA_PIECE = 256
"""Items with media that are read before any of them is packed: more of them fill batches better,
and all their pixels are in memory at a time."""

_BATCHES_AHEAD = 2

_jobs = itertools.count()

Errors = dict[int, ValueError]
"""What is wrong with an item, by its index."""


class MediaReader(Protocol):
    """Puts something else in the place of media."""

    def read(self, items: Sequence[Item | ValueError]) -> list[Item | ValueError]:
        """The items as the model is to read them; errors stay where they are."""
        ...


class Fed(NamedTuple):
    """A batch on the devices."""

    arrays: Batch
    indices: Int32[Array, "I"]
    """The item in each slot, by its place in its piece (-1: none)."""
    num_items: int
    """Of the piece."""


class PieceEnd(NamedTuple):
    """Stands behind the batches of a piece."""

    num_items: int
    errors: Errors
    """Of all processes."""


@dataclass(kw_only=True)
class Feed:
    """Pieces of a job, which all processes are given alike and of which each reads its share.

    The items of a piece are dealt to data shards by their number. A process reads and packs those
    of its own shards; shapes and the number of batches are agreed, so a process that has run out
    feeds empty batches as long as others have items.

    Args:
        reader: puts something else in the place of some media, e.g. what is heard in them.
        flows: items run on from row to row.
        strict: raise the first error instead of noting it.
    """

    processor: Processor
    reader: MediaReader | None
    mesh: jax.sharding.Mesh
    memory: Memory
    tokens_per_batch: int
    patches_per_batch: int
    flows: bool
    strict: bool

    def __post_init__(self):
        self._real_patches = self._computed_patches = 0
        self._job = next(_jobs)
        self._shards = processes.common_shards(self.mesh)

    @property
    def share_real_patches(self) -> float | None:
        """The share of the patches so far, on this process, that held pixels."""
        return self._real_patches / self._computed_patches if self._computed_patches else None

    def run(self, pieces: Iterable[Sequence[Item | ValueError]]) -> Iterator[Fed | PieceEnd]:
        """The batches of all pieces. A thread is some of them ahead of the caller; it has ended
        when this generator is closed.

        Raises:
            ValueError: an item cannot be embedded, and the feed is strict.
        """
        if self.reader is not None:
            # It computes features: two threads would start programs in different orders on
            # different devices.
            return self._run(pieces)
        return ahead(self._run(pieces), _BATCHES_AHEAD)

    def _run(self, pieces: Iterable[Sequence[Item | ValueError]]) -> Iterator[Fed | PieceEnd]:
        for piece in pieces:
            if self.reader is not None:
                piece = self.reader.read(piece)
            errors: Errors = {}
            for batch, indices in self._batches(piece, errors):
                specs = batch_specs(batch), jax.P(BATCH_AXES)
                placed = processes.to_global(self.mesh, (batch, indices), specs, self._shards)
                yield Fed(*placed, len(piece))
            yield PieceEnd(len(piece), errors)

    def _batches(self, piece: Sequence[Item | ValueError], errors: Errors) -> Iterator[Packed]:
        """This process's items in batches, texts first, with their indices in the piece."""
        own = deal(len(piece), meshes.num_shards(self.mesh), self._shards).tolist()
        items = {index: piece[index] for index in own}
        others = [i for i, item in items.items() if isinstance(item, Item) and item.has_media]
        texts = sorted(items.keys() - set(others))
        head, rows = len(self.processor.head), self.memory.row_tokens
        places, encoded = self._encode(items, texts, errors)
        for batch, chosen in pack_texts(
            encoded,
            rows,
            self.tokens_per_batch,
            len(self._shards),
            head,
            self._agree,
            flows=self.flows,
        ):
            yield batch, _take(places, chosen)
        (rounds,) = self._agree("rounds of media", (-(-len(others) // _MEDIA_PIECE),))
        if not rounds:
            return
        stream = MediaStream(
            self.processor.config,
            rows,
            self.memory.frame_rows,
            tokens_per_shard=self.tokens_per_batch,
            patches_per_shard=self.patches_per_batch,
            num_shards=len(self._shards),
            head_tokens=head,
            agree=self._agree,
            flows=self.flows,
        )
        for start in range(0, rounds * _MEDIA_PIECE, _MEDIA_PIECE):
            places, encoded = self._encode(items, others[start : start + _MEDIA_PIECE], errors)
            for batch, chosen in stream.pack(encoded):
                if batch.media.vision is not None:
                    frames = batch.media.vision.frames
                    self._real_patches += np.count_nonzero(frames)
                    self._computed_patches += frames.size
                yield batch, _take(places, chosen)

    def _encode(
        self, items: dict[int, Item | ValueError], indices: Sequence[int], errors: Errors
    ) -> tuple[list[int], list[Encoded]]:
        """Those of the items that can be encoded: their indices, and themselves."""
        found: dict[int, Encoded | ValueError] = {index: items[index] for index in indices}
        chosen = [index for index, item in found.items() if isinstance(item, Item)]
        wanted = [items[index] for index in chosen]
        found |= zip(chosen, self.processor.try_encode(wanted), strict=True)
        for index in chosen:
            if isinstance(found[index], Encoded):
                found[index] = fitting(
                    found[index],
                    self.memory.row_tokens,
                    self.memory.frame_rows,
                    self.processor.config,
                )
        self._note(
            {i: error for i, error in found.items() if isinstance(error, ValueError)}, errors
        )
        good = [index for index, item in found.items() if isinstance(item, Encoded)]
        return good, [found[index] for index in good]

    def _note(self, own: Errors, errors: Errors) -> None:
        """Note the errors of all processes."""
        if not self._agree("errors", (len(own),))[0]:
            return
        texts = {index: str(error) for index, error in own.items()}
        for said in processes.gather(self._key("errors in words"), json.dumps(texts)):
            own = {int(i): RecordError(text) for i, text in json.loads(said).items()} | own
        if self.strict:
            first = min(own)
            raise placed(own[first], first)
        errors |= own

    def _agree(self, key: str, values: tuple[int, ...]) -> tuple[int, ...]:
        return processes.agree_max(self._key(key), values)

    def _key(self, key: str) -> str:
        return f"embedding {self._job}: {key}"


def ahead(values: Iterator[_T], count: int) -> Iterator[_T]:
    """The values of an iterator (none of them None), of which a thread makes so many before they
    are asked for. When the caller leaves, the thread ends after those that it has begun with:
    processes that leave at the same value have then asked each other the same.
    """
    with contextlib.closing(values), ThreadPoolExecutor(1, "feed") as thread:
        begun = collections.deque(thread.submit(next, values, None) for _ in range(count))
        while (value := begun.popleft().result()) is not None:
            begun.append(thread.submit(next, values, None))
            yield value


def _take(positions: Sequence[int], chosen: Int64[np.ndarray, "I"]) -> Int32[np.ndarray, "I"]:
    """The members of `positions` at the chosen places; -1 stays."""
    if not len(positions):
        return chosen.astype(np.int32)
    return np.where(chosen >= 0, np.array(positions, np.int32)[chosen], -1).astype(np.int32)
