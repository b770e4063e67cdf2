"""Many items to vectors: packed, sharded, in input order."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from rich.console import Console
from rich.progress import Progress

from lco_jax.config import Memory
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.batch import Batch
from lco_jax.data.records import Item
from lco_jax.embed.feed import Errors, Fed, Feed, MediaReader, PieceEnd
from lco_jax.embed.input_errors import moved
from lco_jax.models.build import Params
from lco_jax.nn.attention import rows_flow
from lco_jax.objectives.encode import encode, media_features
from lco_jax.runtime.kept_programs import KeptPrograms
from lco_jax.runtime.mesh import compile_for_mesh
from lco_jax.weights.hub import to_host

MakeReader = Callable[
    [nnx.GraphDef, Params, Processor, jax.sharding.Mesh, Memory], MediaReader | None
]


class Encoder:
    """Turns items into pooled vectors with one set of weights.

    A vector depends on its item alone: not on neighbours in its row, the length of the row, the
    order of the items or the number of devices.

    Args:
        tokens_per_batch: packed tokens on each data shard at a time.
        patches_per_batch: patches on each data shard at a time.
        make_reader: gives what puts something else in the place of some media, from graph,
            weights, processor, mesh and memory settings (None: nothing).

    Raises:
        ValueError: a batch that is to hold nothing.
    """

    def __init__(
        self,
        graph: nnx.GraphDef,
        params: dict[str, Any],
        processor: Processor,
        mesh: jax.sharding.Mesh,
        *,
        memory: Memory,
        tokens_per_batch: int = 4096,
        patches_per_batch: int = 8192,
        make_reader: MakeReader | None = None,
    ):
        for name, size in (
            ("tokens_per_batch", tokens_per_batch),
            ("patches_per_batch", patches_per_batch),
        ):
            if size < 1:
                raise ValueError(f"{name}={size} must be positive")
        self.graph, self.params = graph, params
        self._reader = make_reader and make_reader(graph, params, processor, mesh, memory)
        self.processor, self.mesh, self.memory = processor, mesh, memory
        self.tokens_per_batch, self.patches_per_batch = tokens_per_batch, patches_per_batch
        self.share_real_patches: float | None = None
        """Of the last call: the share of the patches computed that held pixels."""
        with jax.set_mesh(mesh):
            self.flows = rows_flow()
            """Whether items run on from row to row."""
            self._embed = _compiled(graph, self.flows)
            self._preamble = jnp.asarray(processor.head)

    def encode(
        self,
        items: Sequence[Item],
        *,
        on_progress: Callable[[int], None] | None = None,
        errors: Errors | None = None,
    ) -> Float[np.ndarray, "N D"]:
        """Vectors of at least one item after the final norm, float32, not normalised.

        Args:
            on_progress: told how many more items are done.
            errors: where to note the items that cannot be embedded; their vectors are zero
                (None: the first error is raised).

        Raises:
            ValueError: an item is empty, too long, or has media that cannot be used or that the
                model does not read.
        """
        pieces = self.encode_pieces([items], on_progress=on_progress, strict=errors is None)
        ((vectors, found),) = pieces
        if errors is not None:
            errors |= found
        return vectors

    def encode_pieces(
        self,
        pieces: Iterable[Sequence[Item | ValueError]],
        *,
        on_progress: Callable[[int], None] | None = None,
        strict: bool = False,
    ) -> Iterator[tuple[Float[np.ndarray, "N D"], Errors]]:
        """The vectors of each piece of a job as of `encode`, and what is wrong with items of it.

        The devices work on one piece while the next is read. Several processes are given the same
        pieces, of which each looks at its own items only; all have all vectors and errors.

        Args:
            strict: raise the first error.
        """
        feed = self._feed(strict=strict)
        collector = _Collector(self._width, on_progress)
        # What is computed: a batch, and the ends of pieces behind it. The next batch is started
        # before the host waits for this one.
        waiting: list[Fed | PieceEnd] = []
        with contextlib.closing(feed.run(pieces)) as ahead:
            for part in ahead:
                if isinstance(part, PieceEnd):
                    waiting.append(part)
                    continue
                with jax.set_mesh(self.mesh):
                    pooled = self._embed(self.params, part.arrays, self._preamble)
                yield from collector.collect(waiting)
                waiting = [part._replace(arrays=pooled)]
            yield from collector.collect(waiting)
        self.share_real_patches = feed.share_real_patches

    def _feed(self, *, strict: bool) -> Feed:
        return Feed(
            processor=self.processor,
            reader=self._reader,
            mesh=self.mesh,
            memory=self.memory,
            tokens_per_batch=self.tokens_per_batch,
            patches_per_batch=self.patches_per_batch,
            flows=self.flows,
            strict=strict,
        )

    @property
    def _width(self) -> int:
        return self.params["final_norm"]["scale"].shape[-1]

    @property
    def num_programs(self) -> int:
        """Shapes for which the model was compiled."""
        return self._embed.num_programs


@functools.lru_cache(maxsize=4)
def _compiled(graph: nnx.GraphDef, flows: bool) -> KeptPrograms:
    """The compiled `(params, batch, preamble) -> pooled states` for batches with one role; models
    of one architecture share it (before and after training, say).
    """

    def embed(params: Params, batch: Batch, preamble: Array) -> Float[Array, "I D"]:
        model = nnx.merge(graph, params)
        chunk = jax.tree.map(lambda x: x[0], batch)
        features = media_features(model, chunk)
        return encode(model, chunk, preamble, features, flows=flows)[0][0]

    return KeptPrograms(compile_for_mesh(embed), lambda: repr((graph, flows)))


class _Collector:
    """Puts the vectors of batches in the places of their items."""

    def __init__(self, width: int, on_progress: Callable[[int], None] | None):
        self._width, self._on_progress = width, on_progress
        self._vectors: Float[np.ndarray, "N D"] | None = None

    def collect(
        self, parts: Iterable[Fed | PieceEnd]
    ) -> Iterator[tuple[Float[np.ndarray, "N D"], Errors]]:
        """The pieces that end in `parts`, whose batches are pooled vectors."""
        for part in parts:
            if self._vectors is None:
                self._vectors = np.zeros((part.num_items, self._width), np.float32)
            if isinstance(part, PieceEnd):
                self._tell(len(part.errors))
                yield self._vectors, part.errors
                self._vectors = None
                continue
            indices = to_host(part.indices)
            real = indices >= 0
            self._vectors[indices[real]] = to_host(part.arrays)[real]
            self._tell(int(real.sum()))

    def _tell(self, done: int) -> None:
        if self._on_progress and done:
            self._on_progress(done)


def encode_in_blocks(
    encode: Callable[..., Float[np.ndarray, "N D"]],
    items: Sequence[Item | ValueError],
    size: int | None,
    width: int,
    on_progress: Callable[[int], None],
    errors: Errors | None,
) -> Float[np.ndarray, "N D"]:
    """As `Encoder.encode`, of items of which at most `size` meet on the devices (None: all may);
    there may be none. An error in the place of an item stands for one that cannot be read."""
    bad = {index: item for index, item in enumerate(items) if isinstance(item, ValueError)}
    strict = errors is None
    if strict and bad:
        raise next(iter(bad.values()))
    errors = {} if strict else errors
    errors |= bad
    on_progress(len(bad))
    good = [index for index in range(len(items)) if index not in bad]
    vectors = np.zeros((len(items), width), np.float32)
    for start in range(0, len(good), size or len(good) or 1):
        places = good[start : start + (size or len(good))]
        found: Errors | None = None if strict else {}
        with moved(places):
            block = [items[index] for index in places]
            vectors[places] = encode(block, on_progress=on_progress, errors=found)
        errors |= {places[index]: error for index, error in (found or {}).items()}
    return vectors


def progress_bar(total: int, enabled: bool) -> Progress:
    """A bar over `total` items on the error stream; its first task is the encoding."""
    bar = Progress(console=Console(stderr=True), disable=not enabled)
    bar.add_task("encoding", total=total)
    return bar
