"""The rows: what every tensor is called on the hub and in our tree, and how it lies in both.

A row is all there is to say about a tensor: loading reads it from left to right, saving from
right to left, and the low-rank factors of an adapter are named by the same rows.
"""

import functools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lco_jax.weights.layout import Layout

Key = tuple[str, int | None]
"""A tensor of our tree: its path, and its place in the stack where the path holds one."""

_QKV = "qkv"


@dataclass(frozen=True)
class Row:
    """One tensor, or a stack of them: with `{L}` in its hub name one for each layer, with `{Q}`
    one for each of query, key and value, stacked along leading dimensions.
    """

    hub: str
    """Name below the decoder or the tower (the output head: below the model)."""
    ours: str
    layout: Layout

    @property
    def stack(self) -> tuple[str, ...]:
        """The leading dimensions, in which several hub tensors are stacked."""
        return tuple(letter for letter in "LQ" if f"{{{letter}}}" in self.hub)

    @property
    def letters(self) -> str:
        """Dimensions of the (stacked) array in our tree."""
        return " ".join((*self.stack, self.layout.ours))

    def keys(self, num_layers: int) -> list[Key]:
        """The tensors of this row."""
        sizes = {"L": num_layers, "Q": len(_QKV)}
        places = range(math.prod(sizes[letter] for letter in self.stack)) if self.stack else (None,)
        return [(self.ours, place) for place in places]

    def name(self, place: int | None) -> str:
        """The hub name of the tensor at a place of the stack."""
        if place is None:
            return self.hub
        layer, part = divmod(place, len(_QKV)) if "Q" in self.stack else (place, 0)
        return self.hub.format(L=layer, Q=_QKV[part])

    def key(self, name: str) -> Key | None:
        """The tensor of this row with that hub name."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        if not self.stack:
            return self.ours, None
        place = int(match["L"])
        if "Q" in self.stack:
            place = place * len(_QKV) + _QKV.index(match["Q"])
        return self.ours, place

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        name = re.escape(self.hub)
        return re.compile(
            name.replace(r"\{L\}", r"(?P<L>\d+)").replace(r"\{Q\}", f"(?P<Q>[{_QKV}])")
        )


def _row(hub: str, ours: str, layout: str) -> Row:
    return Row(hub, ours, Layout(layout))


HEAD = _row("lm_head.weight", "head/kernel", "V D -> D V")

TEXT_ROWS = (
    _row("embed_tokens.weight", "embed/table", "V D -> V D"),
    _row("layers.{L}.input_layernorm.weight", "layers/attention_norm/scale", "D -> D"),
    _row("layers.{L}.self_attn.q_proj.weight", "layers/attention/query/kernel", "(N H) D -> D N H"),
    _row("layers.{L}.self_attn.q_proj.bias", "layers/attention/query/bias", "(N H) -> N H"),
    _row("layers.{L}.self_attn.k_proj.weight", "layers/attention/key/kernel", "(K H) D -> D K H"),
    _row("layers.{L}.self_attn.k_proj.bias", "layers/attention/key/bias", "(K H) -> K H"),
    _row("layers.{L}.self_attn.v_proj.weight", "layers/attention/value/kernel", "(K H) D -> D K H"),
    _row("layers.{L}.self_attn.v_proj.bias", "layers/attention/value/bias", "(K H) -> K H"),
    _row(
        "layers.{L}.self_attn.o_proj.weight", "layers/attention/output/kernel", "D (N H) -> N H D"
    ),
    _row("layers.{L}.post_attention_layernorm.weight", "layers/mlp_norm/scale", "D -> D"),
    _row("layers.{L}.mlp.gate_proj.weight", "layers/mlp/gate/kernel", "F D -> D F"),
    _row("layers.{L}.mlp.up_proj.weight", "layers/mlp/up/kernel", "F D -> D F"),
    _row("layers.{L}.mlp.down_proj.weight", "layers/mlp/down/kernel", "D F -> F D"),
    _row("norm.weight", "final_norm/scale", "D -> D"),
    HEAD,
)


def lora_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows of the factors A and B of every linear layer of the decoder."""
    return tuple(
        Row(
            row.hub.replace(".weight", f".lora_{factor}.weight"),
            row.ours.replace("/kernel", f"/lora_{factor.lower()}"),
            layout,
        )
        for row in rows
        if row.stack and row.ours.endswith("/kernel")
        for factor, layout in zip("AB", row.layout.lora(), strict=True)
    )


_VISION_ROWS = (
    _row("patch_embed.proj.weight", "vision/patch_embed/kernel", "D C T Y X -> C T Y X D"),
    _row("blocks.{L}.norm1.weight", "vision/blocks/attention_norm/scale", "D -> D"),
    _row(
        "blocks.{L}.attn.proj.weight", "vision/blocks/attention/output/kernel", "D (N H) -> N H D"
    ),
    _row("blocks.{L}.attn.proj.bias", "vision/blocks/attention/output/bias", "D -> D"),
    _row("blocks.{L}.norm2.weight", "vision/blocks/mlp_norm/scale", "D -> D"),
    _row("blocks.{L}.mlp.gate_proj.weight", "vision/blocks/mlp/gate/kernel", "F D -> D F"),
    _row("blocks.{L}.mlp.gate_proj.bias", "vision/blocks/mlp/gate/bias", "F -> F"),
    _row("blocks.{L}.mlp.up_proj.weight", "vision/blocks/mlp/up/kernel", "F D -> D F"),
    _row("blocks.{L}.mlp.up_proj.bias", "vision/blocks/mlp/up/bias", "F -> F"),
    _row("blocks.{L}.mlp.down_proj.weight", "vision/blocks/mlp/down/kernel", "D F -> F D"),
    _row("blocks.{L}.mlp.down_proj.bias", "vision/blocks/mlp/down/bias", "D -> D"),
    _row("merger.ln_q.weight", "vision/merger/norm/scale", "D -> D"),
    _row("merger.mlp.0.weight", "vision/merger/hidden/kernel", "F (U D) -> U D F"),
    _row("merger.mlp.0.bias", "vision/merger/hidden/bias", "F -> F"),
    _row("merger.mlp.2.weight", "vision/merger/output/kernel", "E F -> F E"),
    _row("merger.mlp.2.bias", "vision/merger/output/bias", "E -> E"),
)
_QKV_KERNEL, _QKV_BIAS = (f"vision/blocks/attention/qkv/{name}" for name in ("kernel", "bias"))
VL_VISION_ROWS = (
    *_VISION_ROWS,
    _row("blocks.{L}.attn.qkv.weight", _QKV_KERNEL, "(Q N H) D -> Q D N H"),
    _row("blocks.{L}.attn.qkv.bias", _QKV_BIAS, "(Q N H) -> Q N H"),
)
OMNI_VISION_ROWS = (
    *_VISION_ROWS,
    _row("blocks.{L}.attn.{Q}.weight", _QKV_KERNEL, "(N H) D -> D N H"),
    _row("blocks.{L}.attn.{Q}.bias", _QKV_BIAS, "(N H) -> N H"),
)
"""Query, key and value lie fused in a VL checkpoint and apart in an Omni one; ours is one array."""

_AUDIO_ROWS = (
    _row("conv1.weight", "audio/conv1/kernel", "D M X -> X M D"),
    _row("conv1.bias", "audio/conv1/bias", "D -> D"),
    _row("conv2.weight", "audio/conv2/kernel", "O D X -> X D O"),
    _row("conv2.bias", "audio/conv2/bias", "O -> O"),
    _row("layers.{L}.self_attn_layer_norm.weight", "audio/layers/attention_norm/scale", "D -> D"),
    _row("layers.{L}.self_attn_layer_norm.bias", "audio/layers/attention_norm/bias", "D -> D"),
    _row(
        "layers.{L}.self_attn.q_proj.weight",
        "audio/layers/attention/query/kernel",
        "(N H) D -> D N H",
    ),
    _row("layers.{L}.self_attn.q_proj.bias", "audio/layers/attention/query/bias", "(N H) -> N H"),
    _row(
        "layers.{L}.self_attn.k_proj.weight",
        "audio/layers/attention/key/kernel",
        "(N H) D -> D N H",
    ),
    _row(
        "layers.{L}.self_attn.v_proj.weight",
        "audio/layers/attention/value/kernel",
        "(N H) D -> D N H",
    ),
    _row("layers.{L}.self_attn.v_proj.bias", "audio/layers/attention/value/bias", "(N H) -> N H"),
    _row(
        "layers.{L}.self_attn.out_proj.weight",
        "audio/layers/attention/output/kernel",
        "D (N H) -> N H D",
    ),
    _row("layers.{L}.self_attn.out_proj.bias", "audio/layers/attention/output/bias", "D -> D"),
    _row("layers.{L}.final_layer_norm.weight", "audio/layers/mlp_norm/scale", "D -> D"),
    _row("layers.{L}.final_layer_norm.bias", "audio/layers/mlp_norm/bias", "D -> D"),
    _row("layers.{L}.fc1.weight", "audio/layers/mlp/hidden/kernel", "F D -> D F"),
    _row("layers.{L}.fc1.bias", "audio/layers/mlp/hidden/bias", "F -> F"),
    _row("layers.{L}.fc2.weight", "audio/layers/mlp/output/kernel", "D F -> F D"),
    _row("layers.{L}.fc2.bias", "audio/layers/mlp/output/bias", "D -> D"),
)
UNUSED_OF_OMNI_AUDIO = "audio_bos_eos_token.weight"
"""Two vectors on which no feature depends; transformers misses them nonetheless."""
OMNI_AUDIO_ROWS = (
    *_AUDIO_ROWS,
    _row("ln_post.weight", "audio/final_norm/scale", "D -> D"),
    _row("ln_post.bias", "audio/final_norm/bias", "D -> D"),
    _row("proj.weight", "audio/output/kernel", "E D -> D E"),
    _row("proj.bias", "audio/output/bias", "E -> E"),
)
WHISPER_ROWS = (
    *_AUDIO_ROWS,
    _row("layer_norm.weight", "audio/final_norm/scale", "D -> D"),
    _row("layer_norm.bias", "audio/final_norm/bias", "D -> D"),
    _row("embed_positions.weight", "audio/positions", "S D -> S D"),
)
"""The encoder of Whisper, with the names of transformers' WhisperEncoder."""
