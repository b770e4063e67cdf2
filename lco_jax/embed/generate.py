"""Responses of a model to texts and images: to look at, not to serve."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from lco_jax.config import MediaConfig, Memory, MeshConfig
from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.batch import (
    Batch,
    Shape,
    check_fits,
    choose_row,
    fill,
    item_lengths,
    split_items,
)
from lco_jax.data.pack.media_batch import MediaPacker
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.records import Exchange, Item
from lco_jax.embed.open import open_model
from lco_jax.models.decode import Cache, extend, prefill
from lco_jax.objectives.encode import media_features
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime import processes
from lco_jax.runtime.axes import act_spec

_ROWS_PER_SHARD = 8


class Sampling(NamedTuple):
    """How the next token is chosen."""

    temperature: float = 0.0
    """0: always the most likely one."""
    top_p: float = 1.0
    """Choose among the fewest tokens that have this much probability together."""
    seed: int = 0


class Generator:
    """Writes responses, a batch of prompts at a time, with one compiled program for each shape.

    Prompts are rendered by the checkpoint's chat template and nothing is added to them. A greedy
    response depends on its prompt alone.

    Args:
        graph: of a model with its output head.
    """

    def __init__(
        self,
        graph: nnx.GraphDef,
        params: dict[str, Any],
        processor: Processor,
        mesh: jax.sharding.Mesh,
        *,
        memory: Memory | None = None,
    ):
        if jax.process_count() > 1:
            raise ValueError("generation runs in one process; start it on one host")
        self.params, self.processor, self.mesh = params, processor, mesh
        self.memory = memory or Memory()
        self._packer = MediaPacker(processor.config, self.memory.frame_rows)
        self._generate = _compiled(graph, processor.prompter.end_token)
        with jax.set_mesh(mesh):
            self._preamble = jnp.asarray(processor.head)

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        checkpoint: int | None = None,
        dtype: str | None = None,
        media: MediaConfig | None = None,
        mesh: MeshConfig | jax.sharding.Mesh | None = None,
    ) -> "Generator":
        """A generator of a model by name: hub folder, hub id or run folder.

        Raises:
            FileNotFoundError: no such model.
            ValueError: the folder does not hold a model of a supported family.
        """
        mesh = mesh or MeshConfig()
        mesh = meshes.make_mesh(mesh) if isinstance(mesh, MeshConfig) else mesh
        with jax.set_mesh(mesh):
            opened = open_model(
                str(model), checkpoint=checkpoint, dtype=dtype, media=media, with_head=True
            )
        return cls(opened.graph, opened.params, opened.processor, mesh)

    def generate(
        self,
        prompts: Sequence[str | Item],
        *,
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
    ) -> list[str]:
        """The response to each prompt.

        Raises:
            ValueError: a prompt is too long, or has media that cannot be used.
        """
        tokens = self.generate_tokens(prompts, max_new_tokens=max_new_tokens, sampling=sampling)
        return [self.processor.prompter.decode(own) for own in tokens]

    def generate_tokens(
        self,
        prompts: Sequence[str | Item],
        *,
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
    ) -> list[list[int]]:
        """The tokens of the response to each prompt, without the end."""
        items = [Item(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        size = _ROWS_PER_SHARD * meshes.num_shards(self.mesh)
        found: list[list[int]] = []
        for start in range(0, len(items), size):
            encoded = self._encode(items[start : start + size])
            numbers = start + np.arange(size)
            found += self._run(encoded, numbers, max_new_tokens, sampling or Sampling())
        return found

    def _encode(self, items: Sequence[Item]) -> list[Encoded]:
        # Nothing is answered yet, so of each exchange only the prompt has tokens.
        encoded = self.processor.try_encode_exchanges([Exchange(item, "") for item in items], 1)
        for result in encoded:
            if isinstance(result, ValueError):
                raise result
        return encoded

    def _run(
        self,
        encoded: list[Encoded],
        numbers: np.ndarray,
        max_new_tokens: int,
        sampling: Sampling,
    ) -> list[list[int]]:
        batch = self._pack(encoded, len(numbers))
        with jax.set_mesh(self.mesh):
            rows = jax.NamedSharding(self.mesh, act_spec("B"))
            tokens = self._generate(
                self.params,
                processes.to_global(self.mesh, batch, batch_specs(batch)),
                self._preamble,
                jax.device_put(numbers.astype(np.int32), rows),
                max_new_tokens,
                sampling,
            )
        end = self.processor.prompter.end_token
        written = np.asarray(tokens)[: len(encoded)].tolist()
        return [row[: row.index(end)] if end in row else row for row in written]

    def _pack(self, encoded: list[Encoded], num_rows: int) -> Batch:
        """One prompt a row, at its end."""
        num_shards = meshes.num_shards(self.mesh)
        lengths = item_lengths(encoded)
        longest = int(lengths.max())
        check_fits(longest, self.memory.row_tokens)
        row_tokens = self.memory.row_tokens[choose_row(self.memory.row_tokens, longest)]
        items = [*encoded, *[None] * (num_rows - len(encoded))]
        starts = np.arange(num_rows) % _ROWS_PER_SHARD * row_tokens
        starts[: len(encoded)] += row_tokens - lengths
        media = self._packer.choose_shape(self._packer.measure(split_items(items, num_shards)))
        return fill(
            items,
            starts[None, :, None],
            np.arange(num_rows)[None, :, None] + 1,
            num_shards,
            Shape(row_tokens, _ROWS_PER_SHARD, media),
            len(self.processor.head),
            self._packer,
        )


class _State(NamedTuple):
    """Of the loop that writes one token of every row at a time."""

    count: Int[Array, ""]
    tokens: Int[Array, "B N"]
    last: Int[Array, "B"]
    done: Bool[Array, "B"]
    cache: Cache


@functools.lru_cache(maxsize=4)
def _compiled(graph: nnx.GraphDef, end_token: int) -> Callable[..., Int[Array, "B N"]]:
    def generate(params, batch: Batch, preamble, numbers, max_new_tokens, sampling):
        model = nnx.merge(graph, params)
        chunk = jax.tree.map(lambda x: x[0], batch)
        features = media_features(model, chunk)
        hidden, cache = prefill(
            model,
            chunk.tokens,
            chunk.positions,
            chunk.segments,
            preamble=preamble,
            media=None if features is None else (features, chunk.media.slots),
            num_free=max_new_tokens,
        )
        length = chunk.tokens.shape[1]
        real = jnp.pad(chunk.segments > 0, ((0, 0), (0, max_new_tokens)), constant_values=True)
        slots = jnp.arange(length + max_new_tokens)

        def choose(hidden: Float[Array, "B 1 D"], count: Int[Array, ""]) -> Int[Array, "B"]:
            logits = model.logits(model.final_norm(hidden))[:, 0]
            # Moves one row of logits to each shard: the choice needs the whole vocabulary.
            logits = jax.reshard(logits, act_spec("B X"))
            return _choose(logits, numbers, count, sampling)

        def write(state: _State, token: Int[Array, "B"]) -> _State:
            token = jnp.where(state.done, end_token, token)
            column = token[:, None].astype(jnp.int32)
            tokens = jax.lax.dynamic_update_slice_in_dim(state.tokens, column, state.count, axis=1)
            done = state.done | (token == end_token)
            return _State(state.count + 1, tokens, token.astype(jnp.int32), done, state.cache)

        def step(state: _State) -> _State:
            place = length + state.count - 1
            positions = chunk.positions[:, -1:] + state.count
            visible = real & (slots <= place)
            hidden, cache = extend(
                model, state.last[:, None], positions, visible, place, state.cache
            )
            return write(state._replace(cache=cache), choose(hidden, state.count))

        def goes_on(state: _State) -> Bool[Array, ""]:
            return (state.count < max_new_tokens) & ~jnp.all(state.done)

        zeros = jnp.zeros_like(chunk.tokens[:, :1])
        tokens = jnp.broadcast_to(zeros + end_token, (zeros.shape[0], max_new_tokens))
        start = _State(jnp.int32(0), tokens, zeros[:, 0], chunk.segments[:, -1] == 0, cache)
        start = write(start, choose(hidden[:, -1:], start.count))
        return jax.lax.while_loop(goes_on, step, start).tokens

    return jax.jit(generate, static_argnames=("max_new_tokens", "sampling"))


def _choose(
    logits: Float[Array, "B V"],
    numbers: Int[Array, "B"],
    count: Int[Array, ""],
    sampling: Sampling,
) -> Int[Array, "B"]:
    """The next token of each row; chance depends on seed, prompt number and place alone."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if sampling.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        chances = jax.nn.softmax(ordered)
        within = jnp.cumsum(chances, axis=-1) - chances < sampling.top_p
        least = jnp.where(within, ordered, jnp.inf).min(-1, keepdims=True)
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    key = jax.random.fold_in(jax.random.key(sampling.seed), count)

    def draw(logits: Float[Array, "V"], number: Int[Array, ""]) -> Int[Array, ""]:
        own: PRNGKeyArray = jax.random.fold_in(key, number)
        return jax.random.categorical(own, logits)

    return jax.vmap(draw)(logits, numbers)
