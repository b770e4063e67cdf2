"""Many items to vectors: packed, sharded, in input order."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int64
from rich.console import Console
from rich.progress import Progress

from lco_jax.config import Memory
from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.encode.feature_cache import MediaCache
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.batch import Batch
from lco_jax.data.pack.media_stream import MediaStream
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.pack.stream import Packed, pack_texts
from lco_jax.data.records import Item
from lco_jax.models.build import Params
from lco_jax.objectives.encode import encode, media_features
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime import processes
from lco_jax.runtime.mesh import compile_for_mesh
from lco_jax.weights.hub import to_host

log = logging.getLogger(__name__)


_MEDIA_PIECE = 256
"""Items with media that are read before any of them is packed: more of them fill batches better,
and all their pixels are in memory at a time."""

Errors = dict[int, ValueError]
"""What is wrong with an item, by its index."""


class MediaReader(MediaCache, Protocol):
    """Knows the media of the items that it was last shown."""

    def read(self, items: Sequence[Item]) -> None:
        """Read what it reads of some items, and forget all others."""
        ...


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
        make_reader: gives what some media are read with in place of the towers, from graph,
            weights, processor, mesh and memory settings (None: nothing).
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
        self.graph, self.params = graph, params
        self._reader = make_reader and make_reader(graph, params, processor, mesh, memory)
        if self._reader is not None:
            processor = processor.with_cache(self._reader)
        self.processor, self.mesh, self.memory = processor, mesh, memory
        self.tokens_per_batch, self.patches_per_batch = tokens_per_batch, patches_per_batch
        self.share_real_patches: float | None = None
        """Of the last call: the share of the patches computed that held pixels."""
        with jax.set_mesh(mesh):
            self._embed = _compiled(graph)
            self._prefix = jnp.asarray(processor.head)

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
        share = processes.data_share(self.mesh)
        vectors = np.zeros((len(items), self._width), np.float32)
        pending = None  # the device works on one batch while the host packs the next
        with jax.set_mesh(self.mesh):
            for batch, indices in self._batches(items, errors):
                local = _local_part(batch, share)
                arrays = processes.to_global(self.mesh, local, batch_specs(local))
                pooled = self._embed(self.params, arrays, self._prefix)
                _collect(vectors, pending, on_progress)
                pending = (pooled, indices)
            _collect(vectors, pending, on_progress)
        return vectors

    @property
    def _width(self) -> int:
        return self.params["final_norm"]["scale"].shape[-1]

    def _batches(self, items: Sequence[Item], errors: Errors | None) -> Iterator[Packed]:
        """All items in batches, texts first, with their indices in `items`."""
        texts = [index for index, item in enumerate(items) if not item.has_media]
        others = [index for index, item in enumerate(items) if item.has_media]
        num_shards, head = meshes.num_shards(self.mesh), len(self.processor.head)
        rows = self.memory.row_tokens
        places, encoded = self._encode(items, texts, errors)
        for batch, chosen in pack_texts(encoded, rows, self.tokens_per_batch, num_shards, head):
            yield batch, _take(places, chosen)
        if not others:
            return
        stream = MediaStream(
            self.processor.config,
            rows,
            self.memory.frame_rows,
            tokens_per_shard=self.tokens_per_batch,
            patches_per_shard=self.patches_per_batch,
            num_shards=num_shards,
            head_tokens=head,
        )
        real = computed = 0
        for start in range(0, len(others), _MEDIA_PIECE):
            piece = others[start : start + _MEDIA_PIECE]
            places, encoded = self._encode(items, piece, errors)
            for batch, chosen in stream.pack(encoded):
                if batch.media.vision is not None:
                    frames = batch.media.vision.frames
                    real, computed = real + np.count_nonzero(frames), computed + frames.size
                yield batch, _take(places, chosen)
        self.share_real_patches = real / computed if computed else None

    def _encode(
        self, items: Sequence[Item], indices: Sequence[int], errors: Errors | None
    ) -> tuple[list[int], list[Encoded]]:
        """Those of the items that can be encoded: their indices, and themselves."""
        chosen = [items[index] for index in indices]
        if self._reader is not None:
            self._reader.read(chosen)
        found = self.processor.try_encode(chosen)
        longest = self.memory.row_tokens[-1]
        good = []
        for index, result in zip(indices, found, strict=True):
            if isinstance(result, Encoded) and len(result.tokens) > longest:
                result = ValueError(
                    f"an item of {len(result.tokens)} tokens does not fit into rows of {longest}; "
                    "use fewer or smaller media"
                )
            if isinstance(result, Encoded):
                good.append((index, result))
            elif errors is None:
                raise result
            else:
                errors[index] = result
        return [index for index, _ in good], [result for _, result in good]

    @property
    def num_programs(self) -> int:
        """Shapes for which the model was compiled."""
        return self._embed._cache_size()


@functools.lru_cache(maxsize=4)
def _compiled(graph: nnx.GraphDef) -> Callable[..., Float[Array, "I D"]]:
    """The compiled `(params, batch, prefix) -> pooled states` for batches with one role; models of
    one architecture share it (before and after training, say).
    """

    def embed(params: Params, batch: Batch, prefix: Array) -> Float[Array, "I D"]:
        model = nnx.merge(graph, params)
        chunk = jax.tree.map(lambda x: x[0], batch)
        return encode(model, chunk, prefix, media_features(model, chunk))[0][0]

    return compile_for_mesh(embed)


def _local_part(batch, share: processes.Share):
    """This process's rows and items of a batch for all shards."""
    if len(share.shards) == share.num_shards:
        return batch

    def cut(array: np.ndarray, axis: int) -> np.ndarray:
        pieces = np.split(array, share.num_shards, axis)
        return np.concatenate([pieces[shard] for shard in share.shards], axis)

    items = ("pool", "valid", "content")
    cut_items = {name: cut(getattr(batch, name), 2) for name in items}
    rows = batch._replace(**dict.fromkeys(items))
    return jax.tree.map(lambda array: cut(array, 1), rows)._replace(**cut_items)


def _take(positions: Sequence[int], chosen: Int64[np.ndarray, "I"]) -> Int64[np.ndarray, "I"]:
    """The members of `positions` at the chosen places; -1 stays."""
    return np.where(chosen >= 0, np.array(positions, np.int64)[chosen], -1)


def _collect(vectors, pending, on_progress) -> None:
    if pending is None:
        return
    pooled, indices = pending
    real = indices >= 0
    vectors[indices[real]] = to_host(pooled)[real]
    if on_progress:
        on_progress(int(real.sum()))


def progress_bar(total: int, enabled: bool) -> Progress:
    """A bar over `total` items on the error stream; its first task is the encoding."""
    bar = Progress(console=Console(stderr=True), disable=not enabled)
    bar.add_task("encoding", total=total)
    return bar
