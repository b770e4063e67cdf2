"""From sources to the packed batches of a run, ahead of time and resumable at any step."""

import abc
import collections
import contextlib
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Generic, Self, TypeVar

import numpy as np
from jaxtyping import Int64

from lco_jax.config import DataConfig, Memory
from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.encode.processor import Processor
from lco_jax.data.errors import RecordError, at, belonging_to
from lco_jax.data.pack.batch import (
    Batch,
    Shape,
    choose_shape,
    item_lengths,
    measure,
    pack,
    split_items,
)
from lco_jax.data.pack.fits import fitting
from lco_jax.data.pack.level import Groups, levelled, spread
from lco_jax.data.pack.media_batch import MediaPacker
from lco_jax.data.pack.shares import IDLE, Agree, agree_alone, check_batch_size, slots_per_cell
from lco_jax.data.read_ahead import ReadAhead, num_bytes
from lco_jax.data.records import Record
from lco_jax.data.replacements import Replacements
from lco_jax.data.sources.mixture import ExampleStream, is_same_sequence
from lco_jax.data.steps import LoadStats, Step
from lco_jax.runtime.buffers import reusing_memory
from lco_jax.runtime.garbage import collecting_what_is_new

_Part = TypeVar("_Part")

# Tokenisation of a step takes a few tenths of a second at most: this hides it and its variation.
_READ_THREADS = 4
_READ_AHEAD_STEPS = 8
_READ_AHEAD_BYTES = 2 << 30
"""Of images above all: a step of a thousand with pictures takes about a gigabyte on one host."""
_PACKED_AHEAD_STEPS = 2


class Loader(abc.ABC, Generic[_Part]):
    """This process's part of each step's batch, from the next step on.

    Iterating gives `(step, batch, stats)`. The examples of a step depend on seed and sources only
    (`ExampleStream`). Each process has about as many of each source, and each of its chunks and
    shards about as much of everything.

    Args:
        num_shards: data shards of the whole mesh.
        shards: those that this process feeds (None: all).
        groups: those of them that may exchange examples (None: all; see `Share`).
        agree: called in a background thread, in step order; for the same steps on every process
            if all stop iterating after the same step. It must return or raise in bounded time.
        num_steps: where to stop (None: never).

    Raises:
        ValueError: the batch does not divide over chunks and shards, or a source is bad.
    """

    def __init__(
        self,
        config: DataConfig,
        memory: Memory,
        processor: Processor,
        *,
        seed: int,
        num_shards: int = 1,
        shards: Sequence[int] | None = None,
        groups: Groups | None = None,
        agree: Agree = agree_alone,
        num_steps: int | None = None,
    ):
        self._config, self._chunks, self._num_shards = config, memory.encode_chunks, num_shards
        check_batch_size(config.batch_size, self._chunks, num_shards)
        self._take_share(range(num_shards) if shards is None else shards, groups)
        self._row_tokens, self._least_shape = memory.row_tokens, memory.least_shape
        self._frame_rows = memory.frame_rows
        self._processor = processor
        self._packer = MediaPacker(processor.config, memory.frame_rows)
        self._replacements = Replacements(
            lambda place: self._encode_examples([place]),
            self._num_needed,
            skip=processor.media.on_error == "skip",
            max_seconds=processor.media.audio_max_seconds,
        )
        self._agree, self._next_step = agree, 0
        self._stop = sys.maxsize if num_steps is None else num_steps
        self._stream = ExampleStream(config, seed, self._kind)

    _kind: ClassVar[type[Record]]
    """Of the examples."""
    _num_needed: ClassVar[int]
    """How many of the first parts of an example it cannot do without."""

    @abc.abstractmethod
    def _take_parts(self, example: Record | None) -> list[_Part | None]:
        """What of an example (None: an absent one) is encoded, by role; None for what it lacks."""

    @abc.abstractmethod
    def _try_encode(self, parts: Sequence[_Part]) -> list[Encoded | RecordError]:
        """The tokens of each part, or what is wrong with it."""

    def _take_share(self, shards: Sequence[int], groups: Groups | None) -> None:
        self._shards, self._local_shards = list(shards), len(shards)
        self._groups = [[shards.index(shard) for shard in own] for own in groups or [shards]]

    def of_process(
        self, shards: Sequence[int], groups: Groups, agree: Agree, num_steps: int
    ) -> Self:
        """The loader of a process that feeds other shards, from step 0 on; pixels are lacking."""
        other = copy.copy(self)
        other._packer = self._packer.without_pixels()
        other._take_share(shards, groups)
        other._agree, other._stop, other._next_step = agree, num_steps, 0
        return other

    def demand_of(self, step: int) -> tuple[int, ...]:
        """What the items that this process has in a step ask of its shape."""
        return sum(self._measure(self._encode(step).items), ())

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which as many examples are seen as the sources hold."""
        return self._stream.steps_per_epoch

    @property
    def fingerprint(self) -> str:
        """What decides the sequence of examples, in words."""
        return self._stream.fingerprint

    def get_state(self) -> dict:
        """Where the run is: all that is needed to go on, on any mesh and number of processes."""
        return {"next_step": self._next_step, "fingerprint": self.fingerprint}

    def set_state(self, state: dict) -> None:
        """Go on from where `state` was taken; it takes effect at the next `iter`.

        Raises:
            ValueError: the state belongs to other data; the parts that differ are named.
        """
        if not is_same_sequence(state["fingerprint"], self.fingerprint):
            saved, present = (
                set(text.split("; ")) for text in (state["fingerprint"], self.fingerprint)
            )
            raise ValueError(
                "the data differ from those of the checkpoint: it was trained with "
                f"{sorted(saved - present)}, this run has {sorted(present - saved)}; restore the "
                "data or start a new run"
            )
        self._next_step = state["next_step"]

    def __iter__(self) -> Iterator[tuple[int, Batch, LoadStats]]:
        if self._next_step >= self._stop:
            return
        import grain  # takes a second, and embedding, which imports this file, has no use for it

        read_ahead = ReadAhead(_READ_AHEAD_BYTES, self._next_step)

        def encode(step: int) -> Step:
            return read_ahead.read(step, self._encode, lambda found: num_bytes(found.items))

        def pack_next(loaded: Step) -> tuple[int, Shape, Batch, int]:
            packed = self._pack(loaded)
            read_ahead.take(loaded.step)
            return packed

        steps = grain.MapDataset.range(self._next_step, self._stop).map(encode)
        encoded = steps.to_iter_dataset(
            grain.ReadOptions(num_threads=_READ_THREADS, prefetch_buffer_size=_READ_AHEAD_STEPS)
        )
        batches = iter(encoded.map(pack_next))
        # A single thread, so that processes ask each other in step order. When the caller leaves,
        # it finishes what is ahead: processes that leave after the same step have asked the same.
        with (
            collecting_what_is_new(),
            reusing_memory(),
            contextlib.closing(batches),
            ThreadPoolExecutor(max_workers=1) as packer,
            contextlib.closing(read_ahead),
        ):
            ahead = collections.deque(
                packer.submit(next, batches, None) for _ in range(_PACKED_AHEAD_STEPS)
            )
            while True:
                start_s = time.perf_counter()
                loaded = ahead.popleft().result()
                waited_s = time.perf_counter() - start_s
                if loaded is None:
                    return
                ahead.append(packer.submit(next, batches, None))
                step, shape, batch, unreadable = loaded
                self._next_step = step + 1
                yield (
                    step,
                    batch,
                    LoadStats(
                        shape=shape,
                        real_tokens=int(np.count_nonzero(batch.segments)),
                        slots=batch.segments.size,
                        waited_s=waited_s,
                        real_patches=batch.media and batch.media.share_real_patches,
                        unreadable=unreadable,
                    ),
                )

    def _encode(self, step: int) -> Step:
        """This process's examples of a step."""
        first = step * self._config.batch_size
        numbers = self._numbers_of(step)
        places = [None if number == IDLE else first + number for number in numbers.flat]
        encoded = self._encode_examples(places)
        errors = [error for error in encoded if isinstance(error, RecordError)]
        for error in errors:
            self._replacements.refuse(error)
        if errors:
            roles = len(encoded) // len(places)
            for index, place in enumerate(places):
                own = slice(index * roles, (index + 1) * roles)
                if any(isinstance(role, RecordError) for role in encoded[own]):
                    encoded[own] = self._replacements.replace(encoded[own], place)
        levels = levelled(numbers, encoded, self._local_shards, self._groups)
        return Step(step, *levels, len(errors))

    def _numbers_of(self, step: int) -> Int64[np.ndarray, "C I"]:
        """Which examples of the global batch are this process's: every cell has about as many of
        each kind, on whatever number of processes."""
        first, size = step * self._config.batch_size, self._config.batch_size
        sizes = self._stream.sizes_of(range(first, first + size))
        numbers = spread(sizes, self._chunks * self._num_shards)
        own = numbers.reshape(self._chunks, self._num_shards, -1)[:, self._shards]
        return own.reshape(self._chunks, -1)

    def _encode_examples(self, places: Sequence[int | None]) -> list[Encoded | RecordError | None]:
        """The roles of the examples at these places of the sequence (None: absent)."""
        absent = self._take_parts(None)
        found = iter(self._stream.find([place for place in places if place is not None]))
        given = []
        for place in places:
            given += absent if place is None else self._take_parts_of(*next(found), absent)
        parts = [part for part in given if not (part is None or isinstance(part, RecordError))]
        encoded = self._try_encode(parts)
        if len(parts) < len(given):
            read = iter(encoded)
            encoded = [
                part if part is None or isinstance(part, RecordError) else next(read)
                for part in given
            ]
        longest = self._row_tokens[-1]
        for index, one in enumerate(encoded):
            if isinstance(one, Encoded) and not one.media and len(one.tokens) <= longest:
                continue  # nearly all
            if one is not None:
                encoded[index] = self._named(one, places[index // len(absent)])
        return encoded

    def _take_parts_of(
        self, source: int, number: int, absent: list[None]
    ) -> list[_Part | RecordError | None]:
        try:
            with belonging_to(lambda: self._stream.place_of_record(source, number)):
                return self._take_parts(self._stream.record(source, number))
        except RecordError as error:
            return [error, *absent[1:]]

    def _named(self, found: Encoded | RecordError, place: int) -> Encoded | RecordError:
        """What became of a part, with the place of the record in an error."""
        if isinstance(found, Encoded):
            found = fitting(found, self._row_tokens, self._frame_rows, self._processor.config)
        return at(self._stream.place_of(place), found) if isinstance(found, RecordError) else found

    def _pack(self, loaded: Step) -> tuple[int, Shape, Batch, int]:
        step, numbers, encoded, unreadable = loaded
        tokens, media = self._measure(encoded)
        demand = self._agree("batch shape", (*tokens, *media))
        shape = choose_shape(demand[: len(tokens)], self._row_tokens)
        shape = shape._replace(media=self._packer.choose_shape(demand[len(tokens) :]))
        shape = shape.at_least(*self._least_shape)
        head_tokens = len(self._processor.head)
        batch = pack(encoded, numbers, self._local_shards, shape, head_tokens, self._packer)
        return step, shape, batch, unreadable

    def _measure(self, encoded: list[Encoded | None]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the tokens of the items ask of the shape of a step, and what their media do."""
        slots = slots_per_cell(self._config.batch_size, self._chunks * self._num_shards)
        lengths = item_lengths(encoded).reshape(self._chunks, self._local_shards * slots, -1)
        shards = split_items(encoded, self._chunks * self._local_shards)
        return measure(lengths, self._local_shards, self._row_tokens), self._packer.measure(shards)
