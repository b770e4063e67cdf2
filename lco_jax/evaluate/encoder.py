"""Many items to vectors: packed, sharded, in input order."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from rich.console import Console
from rich.progress import Progress

from lco_jax.data.batch import pack_stream
from lco_jax.data.prompt import Prompter
from lco_jax.data.records import Item
from lco_jax.train import mesh as meshes
from lco_jax.train.steps import BATCH_SPECS, embed_step
from lco_jax.weights.hub import to_host

log = logging.getLogger(__name__)


class Encoder:
    """Turns items into pooled vectors with one set of weights.

    A vector depends on its item alone: not on neighbours in its row, the length of the row, the
    order of the items or the number of devices.

    Args:
        tokens_per_batch: packed tokens on each data shard at a time.
        row_tokens: allowed lengths of a packed row.
    """

    def __init__(
        self,
        graph: nnx.GraphDef,
        params: dict[str, Any],
        prompter: Prompter,
        mesh: jax.sharding.Mesh,
        *,
        row_tokens: tuple[int, ...],
        tokens_per_batch: int = 4096,
    ):
        self.params, self.prompter, self.mesh = params, prompter, mesh
        self.row_tokens, self.tokens_per_batch = row_tokens, tokens_per_batch
        self._embed = _compiled(graph)
        with jax.set_mesh(mesh):
            self._prefix = jnp.asarray(prompter.head)

    def encode(
        self, items: Sequence[Item], *, on_progress: Callable[[int], None] | None = None
    ) -> Float[np.ndarray, "N D"]:
        """Vectors of at least one item after the final norm, float32, not normalised.

        Args:
            on_progress: told how many more items are done.

        Raises:
            ValueError: an item is empty, has media, or is too long; the message says which.
        """
        encoded = self.prompter.encode(items)
        head = len(self.prompter.head)
        share, num_shares = meshes.data_share(self.mesh)
        num_shards = meshes.num_shards(self.mesh)
        batches = pack_stream(encoded, self.row_tokens, self.tokens_per_batch, num_shards, head)
        vectors = None
        pending = None  # the device works on one batch while the host packs the next
        with jax.set_mesh(self.mesh):
            for batch, indices in batches:
                local = _local_part(batch, share, num_shares)
                pooled = self._embed(
                    self.params, meshes.to_global(self.mesh, local, BATCH_SPECS), self._prefix
                )
                vectors = _collect(vectors, pending, len(items), on_progress)
                pending = (pooled, indices)
            vectors = _collect(vectors, pending, len(items), on_progress)
        return vectors

    @property
    def num_programs(self) -> int:
        """Shapes for which the model was compiled."""
        return self._embed._cache_size()


@functools.lru_cache(maxsize=4)
def _compiled(graph: nnx.GraphDef) -> Callable[..., Float[Array, "I D"]]:
    # Models of one architecture share their programs (before and after training, say).
    return embed_step(graph)


def _local_part(batch, share: int, num_shares: int):
    """This process's contiguous rows and items of a batch for all shards."""
    if num_shares == 1:
        return batch

    def cut(array: np.ndarray, axis: int) -> np.ndarray:
        return np.split(array, num_shares, axis)[share]

    rows = {name: cut(getattr(batch, name), 1) for name in ("tokens", "segments", "positions")}
    items = {name: cut(getattr(batch, name), 2) for name in ("pool", "valid", "content")}
    return batch._replace(**rows, **items)


def _collect(vectors, pending, count, on_progress):
    if pending is None:
        return vectors
    pooled, indices = pending
    values = to_host(pooled)
    if vectors is None:
        vectors = np.empty((count, values.shape[1]), np.float32)
    real = indices >= 0
    vectors[indices[real]] = values[real]
    if on_progress:
        on_progress(int(real.sum()))
    return vectors


def progress_bar(total: int, enabled: bool) -> Progress:
    """A bar over `total` items on the error stream; its first task is the encoding."""
    bar = Progress(console=Console(stderr=True), disable=not enabled)
    bar.add_task("encoding", total=total)
    return bar
