"""The decoder of all families."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from lco_jax.config import Lora
from lco_jax.models.config import TextConfig
from lco_jax.models.places import DeepFeatures, Media, place_features, places_in_item
from lco_jax.nn.attention import Mask, attend, row_mask
from lco_jax.nn.dropout import TokenDropout
from lco_jax.nn.feed_forward import SwiGlu
from lco_jax.nn.linear import Embedding, Linear, apply_all, contract
from lco_jax.nn.norm import RMSNorm
from lco_jax.nn.rope import Rotation, mrope, rotate
from lco_jax.nn.stack import Remat, last_layer, scan_layers, stacked
from lco_jax.runtime.axes import act_spec

KeyValue = tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]]
Past = tuple[KeyValue, Int[Array, ""]]
"""Slots of keys and values, and the first of those that new tokens take."""
Tap = Callable[[Float[Array, "B S D"]], Any]
Pool = Callable[[Shaped[Array, "B S *x"]], Shaped[Array, "J I *x"]]
"""Picks tokens out of the rows."""


class Context(NamedTuple):
    """What a layer knows of its rows besides their states."""

    rotation: Rotation
    mask: Mask
    dropout: TokenDropout | None = None
    preamble: KeyValue | None = None
    past: Past | None = None

    def of(self, pool: Pool | None) -> "Context":
        """The same with the dropout of the tokens that `pool` picks."""
        dropout = self.dropout if pool is None else self.dropout and self.dropout.of(pool)
        return self._replace(dropout=dropout)

    def in_layer(self, index: Int[Array, ""]) -> "Context":
        """The same with the dropout of a layer."""
        return self._replace(dropout=self.dropout and self.dropout.in_layer(index))


class Attention(nnx.Module):
    """Causal grouped-query attention."""

    def __init__(self, config: TextConfig, lora: Lora | None, dtype: jnp.dtype, rngs: nnx.Rngs):
        def linear(name: str, layout: str, use_bias: bool) -> Linear:
            branch = lora if lora and name in lora.targets else None
            options = {"use_bias": use_bias, "lora": branch, "dtype": dtype, "rngs": rngs}
            return Linear(layout, config.sizes, **options)

        self.query = linear("query", "D -> N H", config.has_qkv_bias)
        self.key = linear("key", "D -> K H", config.has_qkv_bias)
        self.value = linear("value", "D -> K H", config.has_qkv_bias)
        self.output = linear("output", "N H -> D", config.has_output_bias)
        self.query_norm, self.key_norm = nnx.data(None), nnx.data(None)
        if config.has_qk_norm:
            of_heads = {"eps": config.norm_eps, "dtype": dtype, "over": "H"}
            self.query_norm = RMSNorm(config.sizes, **of_heads)
            self.key_norm = RMSNorm(config.sizes, **of_heads)

    def __call__(
        self, x: Float[Array, "B S D"], context: Context, pool: Pool | None = None
    ) -> tuple[Float[Array, "B S D"], KeyValue]:
        """The attended values (of the tokens that `pool` picks), and the keys and values for what
        follows: for rows that have this as a preamble, or for the tokens after it.
        """
        rotation, mask, dropout, preamble, past = context
        lora_x = dropout(x, 0) if dropout else x
        query, key, value = apply_all([self.query, self.key, self.value], x, lora_x)
        if self.query_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query, rotation), rotate(key, rotation)
        if past is not None:
            (keys, values), place = past
            key = jax.lax.dynamic_update_slice_in_dim(keys, key, place, axis=1)
            value = jax.lax.dynamic_update_slice_in_dim(values, value, place, axis=1)
        attended = attend(query, key, value, mask, preamble)
        if pool is not None:
            attended, dropout = pool(attended), context.of(pool).dropout
        lora_attended = dropout(attended, 1) if dropout else attended
        return self.output(attended, lora_attended), (key, value)


class Layer(nnx.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, config: TextConfig, lora: Lora | None, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.sizes, eps=config.norm_eps, dtype=dtype)
        self.attention = Attention(config, lora, dtype, rngs)
        self.mlp_norm = RMSNorm(config.sizes, eps=config.norm_eps, dtype=dtype)
        self.mlp = SwiGlu(config.sizes, lora=lora, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B S D"], context: Context, pool: Pool | None = None
    ) -> tuple[Float[Array, "B S D"], KeyValue]:
        """New states (of the tokens that `pool` picks), and the keys and values of all tokens."""
        attended, key_value = self.attention(self.attention_norm(x), context, pool)
        x = (x if pool is None else pool(x)) + attended
        return x + self.mlp(self.mlp_norm(x), context.of(pool).dropout), key_value


class TextModel(nnx.Module):
    """Token ids to hidden states of the last layer.

    Rows are packed: several items stand in one row, told apart by `segments` (0 is padding).
    All items may begin with the same `preamble` tokens, which then stand in no row: they are run
    once for the batch and every item attends to their keys and values.

    Source: transformers Qwen2Model, LlamaModel, MistralModel, Qwen3Model, Qwen2_5_VLTextModel,
    Qwen3VLTextModel.
    """

    def __init__(
        self,
        config: TextConfig,
        *,
        lora: Lora | None = None,
        with_head: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Random weights of `dtype`, which is that of the activations, too."""
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.dropout_rate = lora.dropout if lora else 0.0
        self.embed = Embedding(config.sizes, dtype=self.dtype, rngs=rngs)
        self.layers = stacked(
            lambda rngs: Layer(config, lora, self.dtype, rngs), config.num_layers, rngs
        )
        self.final_norm = RMSNorm(config.sizes, eps=config.norm_eps, dtype=self.dtype)
        self.head = nnx.data(None)
        if with_head and not config.tie_embeddings:
            self.head = Linear("D -> V", config.sizes, dtype=self.dtype, rngs=rngs)

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        positions: Int[Array, "B S 3"],
        segments: Int[Array, "B S"],
        *,
        preamble: Int[Array, "P"] | None = None,
        media: Media | None = None,
        dropout_key: PRNGKeyArray | None = None,
        remat: Remat = "none",
        tap: Tap | None = None,
        pool: Pool | None = None,
        skips: bool = True,
        flows: bool = False,
    ) -> tuple[Float[Array, "B S D"], Any]:
        """Hidden states before the final norm, and `tap` of every layer's output.

        Args:
            dropout_key: turns dropout on.
            tap: applied to the embeddings and to each layer's output; its results are stacked
                to a leading `L + 1`.
            pool: picks the tokens whose states are wanted, from those and for `tap`.
            skips: of the last layer compute only what these need; not if weights of the layers
                (other than low-rank factors) are differentiated.
            flows: items may run on into the next row of their shard.
        """
        inputs = self.begin(tokens, positions, segments, preamble, media, dropout_key, flows)
        picked = pool or (lambda x: x)

        def run(layer: Layer, index: Int[Array, ""], carry):
            carry, _ = inputs.run_layer(layer, index, carry)
            return carry, tap(picked(carry[0])) if tap else None

        depth = self.config.num_layers
        is_last_apart = pool is not None and skips
        (x, x_shared), taps = scan_layers(
            run, self.layers, inputs.carry, num_layers=depth - is_last_apart, remat=remat
        )
        ends = [] if not tap else [tap(picked(inputs.carry[0]))]
        if is_last_apart:
            x = inputs.run_last(last_layer(self.layers), depth - 1, (x, x_shared), pool)
            ends += [tap(x)] if tap else []
        else:
            x = picked(x)
        if tap:
            ends = [jax.tree.map(lambda end: end[None], end) for end in ends]
            taps = jax.tree.map(lambda *parts: jnp.concatenate(parts), ends[0], taps, *ends[1:])
        return x, taps

    def begin(
        self,
        tokens: Int[Array, "B S"],
        positions: Int[Array, "B S 3"],
        segments: Int[Array, "B S"],
        preamble: Int[Array, "P"] | None = None,
        media: Media | None = None,
        dropout_key: PRNGKeyArray | None = None,
        flows: bool = False,
    ) -> "LayerInputs":
        """What the layers need of the rows and of their preamble."""
        rows = self._rows(tokens, positions, segments, dropout_key, media, flows)
        shared = None
        if preamble is not None and preamble.shape[0] > 0:
            places = jnp.broadcast_to(jnp.arange(preamble.shape[0])[:, None], (*preamble.shape, 3))
            # Item -1 owns the preamble: all items see it after the same dropout.
            owner = jnp.full((1, preamble.shape[0]), -1, jnp.int32)
            shared = self._rows(preamble[None], places[None], owner, dropout_key)
        return LayerInputs(rows, shared)

    def rotation(self, positions: Int[Array, "B S 3"]) -> Rotation:
        """The rotation of queries and keys at these positions."""
        config = self.config
        return mrope(
            positions,
            head_dim=config.head_dim,
            theta=config.rope_theta,
            section=config.mrope_section,
            interleaved=config.interleaves_axes,
            scaling=config.rope_scaling,
        )

    def logits(self, x: Float[Array, "B S D"]) -> Float[Array, "B S V"]:
        """Next-token logits of normed hidden states, in float32.

        Raises:
            ValueError: the model was built without its output head.
        """
        return self.logits_fn()(x)

    def logits_fn(self) -> Callable[[Float[Array, "B S D"]], Float[Array, "B S V"]]:
        """`logits`, as a pytree of weights that are brought together once for all calls.

        Raises:
            ValueError: the model was built without its output head.
        """
        if self.config.tie_embeddings:
            weight, letters = self.embed.table[...], "VD"
        elif self.head is not None:
            weight, letters = self.head.kernel[...], "DV"
        else:
            raise ValueError("the model was built without its output head; pass with_head=True")
        # Moves V x D values over `fsdp`, once for all calls; the vocabulary stays on `tensor`.
        weight = jax.reshard(weight, act_spec(" ".join(letters)))
        equation = f"BSD,{letters}->BSV"
        return jax.tree_util.Partial(lambda w, x: contract(x, w, equation, jnp.float32), weight)

    def _rows(self, tokens, positions, segments, dropout_key, media=None, flows=False) -> "_Rows":
        dropout = None
        if dropout_key is not None and self.dropout_rate > 0:
            places = places_in_item(segments)
            dropout = TokenDropout(dropout_key, self.dropout_rate, segments, places)
        embeddings = self.embed(tokens).astype(self.dtype)
        if media is not None:
            embeddings = place_features(embeddings, *media)
        mask = row_mask(segments, self.config.head_dim, flows=flows)
        deep = DeepFeatures(media, self.config.hidden_size)
        return _Rows(embeddings, Context(self.rotation(positions), mask, dropout), deep)


class _Rows(NamedTuple):
    """What the layers need of a set of rows, computed once for all layers."""

    embeddings: Float[Array, "B S D"]
    context: Context
    deep: DeepFeatures


class LayerInputs:
    """Rows and the preamble that they share, on their way through the layers."""

    def __init__(self, rows: _Rows, shared: _Rows | None):
        self._rows, self._shared = rows, shared
        self.carry = (rows.embeddings, None if shared is None else shared.embeddings)
        """States of the rows and of the preamble, before the first layer."""

    def run_layer(
        self, layer: Layer, index: Int[Array, ""], carry: tuple[Array, Array | None]
    ) -> tuple[tuple[Array, Array | None], tuple[KeyValue, KeyValue | None]]:
        """The states after a layer, and its keys and values for rows and preamble."""
        x, x_shared = carry
        preamble = None
        if self._shared is not None:
            x_shared, preamble = layer(x_shared, self._shared.context.in_layer(index))
        x, key_value = layer(x, self._rows.context.in_layer(index)._replace(preamble=preamble))
        return (self._rows.deep.add(x, index), x_shared), (key_value, preamble)

    def run_last(
        self, layer: Layer, index: int, carry: tuple[Array, Array | None], pool: Pool
    ) -> Float[Array, "J I D"]:
        """The states of the tokens that `pool` picks after the last layer. Their rows give keys and
        values, but have no output and no feed-forward; nor has the preamble.
        """
        x, x_shared = carry
        preamble = None
        if self._shared is not None:
            _, preamble = layer(x_shared, self._shared.context.in_layer(index))
        context = self._rows.context.in_layer(index)._replace(preamble=preamble)
        return self._rows.deep.add_pooled(layer(x, context, pool)[0], x, index, pool)
