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
    """One tensor, or a stack of them: with `{L}` in its hub name one for each layer, with `{M}` one
    for each merger of an inner layer's output, with `{Q}` one for each of query, key and value,
    stacked along leading dimensions. What stands in brackets there is written, and need not be
    there on reading.
    """

    hub: str
    """Name below the decoder or the tower (the output head: below the model)."""
    ours: str
    layout: Layout

    @property
    def stack(self) -> tuple[str, ...]:
        """The leading dimensions, in which several hub tensors are stacked."""
        return tuple(letter for letter in "LMQ" if f"{{{letter}}}" in self.hub)

    def keys(self, count: int) -> list[Key]:
        """The tensors of this row, of so many layers or mergers."""
        sizes = {"L": count, "M": count, "Q": len(_QKV)}
        places = range(math.prod(sizes[letter] for letter in self.stack)) if self.stack else (None,)
        return [(self.ours, place) for place in places]

    def name(self, place: int | None) -> str:
        """The hub name of the tensor at a place of the stack."""
        hub = self.hub.replace("[", "").replace("]", "")
        if place is None:
            return hub
        layer, part = divmod(place, len(_QKV)) if "Q" in self.stack else (place, 0)
        return hub.format(L=layer, M=layer, Q=_QKV[part])

    def key(self, name: str) -> Key | None:
        """The tensor of this row with that hub name."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        if not self.stack:
            return self.ours, None
        place = int(match[self.stack[0]])
        if "Q" in self.stack:
            place = place * len(_QKV) + _QKV.index(match["Q"])
        return self.ours, place

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        name = re.escape(self.hub).replace(r"\[", "(?:").replace(r"\]", ")?")
        for letter in "LM":
            name = name.replace(rf"\{{{letter}\}}", rf"(?P<{letter}>\d+)")
        return re.compile(name.replace(r"\{Q\}", f"(?P<Q>[{_QKV}])"))


def _row(hub: str, ours: str, layout: str) -> Row:
    return Row(hub, ours, Layout(layout))


def _weight(hub: str, ours: str, layout: str) -> Row:
    """The weight of a linear map."""
    return _row(f"{hub}.weight", f"{ours}/kernel", layout)


def _linear(hub: str, ours: str, layout: str) -> tuple[Row, Row]:
    """The weight and the bias of a linear map."""
    weight = _weight(hub, ours, layout)
    return weight, Row(f"{hub}.bias", f"{ours}/bias", weight.layout.bias())


def _scale(hub: str, ours: str) -> Row:
    """The scale of a norm."""
    return _row(f"{hub}.weight", f"{ours}/scale", "D -> D")


def _norm(hub: str, ours: str) -> tuple[Row, Row]:
    """The scale and the bias of a norm."""
    return _scale(hub, ours), _row(f"{hub}.bias", f"{ours}/bias", "D -> D")


HEAD = _weight("lm_head", "head", "V D -> D V")

_QUERY = _linear("layers.{L}.self_attn.q_proj", "layers/attention/query", "(N H) D -> D N H")
_KEY = _linear("layers.{L}.self_attn.k_proj", "layers/attention/key", "(K H) D -> D K H")
_VALUE = _linear("layers.{L}.self_attn.v_proj", "layers/attention/value", "(K H) D -> D K H")
_OUTPUT = _linear("layers.{L}.self_attn.o_proj", "layers/attention/output", "D (N H) -> N H D")

TEXT_ROWS = (
    _row("embed_tokens.weight", "embed/table", "V D -> V D"),
    _scale("layers.{L}.input_layernorm", "layers/attention_norm"),
    *(weight for weight, _ in (_QUERY, _KEY, _VALUE, _OUTPUT)),
    _scale("layers.{L}.post_attention_layernorm", "layers/mlp_norm"),
    _weight("layers.{L}.mlp.gate_proj", "layers/mlp/gate", "F D -> D F"),
    _weight("layers.{L}.mlp.up_proj", "layers/mlp/up", "F D -> D F"),
    _weight("layers.{L}.mlp.down_proj", "layers/mlp/down", "D F -> F D"),
    _scale("norm", "final_norm"),
    HEAD,
)
"""Of every decoder."""
QKV_BIASES = tuple(bias for _, bias in (_QUERY, _KEY, _VALUE))
OUTPUT_BIAS = _OUTPUT[1:]
QK_NORMS = (
    _row("layers.{L}.self_attn.q_norm.weight", "layers/attention/query_norm/scale", "H -> H"),
    _row("layers.{L}.self_attn.k_norm.weight", "layers/attention/key_norm/scale", "H -> H"),
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
    _weight("patch_embed.proj", "vision/patch_embed", "D C T Y X -> C T Y X D"),
    _scale("blocks.{L}.norm1", "vision/blocks/attention_norm"),
    *_linear("blocks.{L}.attn.proj", "vision/blocks/attention/output", "D (N H) -> N H D"),
    _scale("blocks.{L}.norm2", "vision/blocks/mlp_norm"),
    *_linear("blocks.{L}.mlp.gate_proj", "vision/blocks/mlp/gate", "F D -> D F"),
    *_linear("blocks.{L}.mlp.up_proj", "vision/blocks/mlp/up", "F D -> D F"),
    *_linear("blocks.{L}.mlp.down_proj", "vision/blocks/mlp/down", "D F -> F D"),
    _scale("merger.ln_q", "vision/merger/norm"),
    *_linear("merger.mlp.0", "vision/merger/hidden", "F (U D) -> U D F"),
    *_linear("merger.mlp.2", "vision/merger/output", "E F -> F E"),
)
_QKV_PATH = "vision/blocks/attention/qkv"
VL_VISION_ROWS = (
    *_VISION_ROWS,
    *_linear("blocks.{L}.attn.qkv", _QKV_PATH, "(Q N H) D -> Q D N H"),
)
OMNI_VISION_ROWS = (
    *_VISION_ROWS,
    *_linear("blocks.{L}.attn.{Q}", _QKV_PATH, "(N H) D -> D N H"),
)
"""Query, key and value lie fused in a VL checkpoint and apart in an Omni one; ours is one array."""

_UNIT_NORM = "deepstack_merger_list.{M}.norm"
DEEP_ROWS = (
    *_linear("patch_embed.proj", "vision/patch_embed", "D C T Y X -> C T Y X D"),
    _row("pos_embed.weight", "vision/positions", "S D -> S D"),
    *_norm("blocks.{L}.norm1", "vision/blocks/attention_norm"),
    *_linear("blocks.{L}.attn.qkv", _QKV_PATH, "(Q N H) D -> Q D N H"),
    *_linear("blocks.{L}.attn.proj", "vision/blocks/attention/output", "D (N H) -> N H D"),
    *_norm("blocks.{L}.norm2", "vision/blocks/mlp_norm"),
    *_linear("blocks.{L}.mlp.linear_fc1", "vision/blocks/mlp/hidden", "F D -> D F"),
    *_linear("blocks.{L}.mlp.linear_fc2", "vision/blocks/mlp/output", "D F -> F D"),
    *_norm("merger.norm", "vision/merger/norm"),
    *_linear("merger.linear_fc1", "vision/merger/hidden", "F (U D) -> U D F"),
    *_linear("merger.linear_fc2", "vision/merger/output", "E F -> F E"),
    _row(f"{_UNIT_NORM}.weight", "vision/deep_mergers/norm/scale", "(U D) -> U D"),
    _row(f"{_UNIT_NORM}.bias", "vision/deep_mergers/norm/bias", "(U D) -> U D"),
    *_linear(
        "deepstack_merger_list.{M}.linear_fc1", "vision/deep_mergers/hidden", "F (U D) -> U D F"
    ),
    *_linear("deepstack_merger_list.{M}.linear_fc2", "vision/deep_mergers/output", "E F -> F E"),
)
"""A tower whose inner layers give features, too."""

_CLIP = "vision_tower.[vision_model.]"
TILE_ROWS = (
    _row(f"{_CLIP}embeddings.class_embedding", "vision/embed/first", "D -> D"),
    _weight(f"{_CLIP}embeddings.patch_embedding", "vision/embed", "D C Y X -> C Y X D"),
    _row(f"{_CLIP}embeddings.position_embedding.weight", "vision/embed/positions", "S D -> S D"),
    *_norm(f"{_CLIP}pre_layrnorm", "vision/first_norm"),
    *_norm(f"{_CLIP}encoder.layers.{{L}}.layer_norm1", "vision/blocks/attention_norm"),
    *_linear(f"{_CLIP}encoder.layers.{{L}}.self_attn.{{Q}}_proj", _QKV_PATH, "(N H) D -> D N H"),
    *_linear(
        f"{_CLIP}encoder.layers.{{L}}.self_attn.out_proj",
        "vision/blocks/attention/output",
        "D (N H) -> N H D",
    ),
    *_norm(f"{_CLIP}encoder.layers.{{L}}.layer_norm2", "vision/blocks/mlp_norm"),
    *_linear(f"{_CLIP}encoder.layers.{{L}}.mlp.fc1", "vision/blocks/mlp/hidden", "F D -> D F"),
    *_linear(f"{_CLIP}encoder.layers.{{L}}.mlp.fc2", "vision/blocks/mlp/output", "D F -> F D"),
    *_linear("multi_modal_projector.linear_1", "vision/projector/hidden", "E D -> D E"),
    *_linear("multi_modal_projector.linear_2", "vision/projector/output", "O E -> E O"),
    _row("image_newline", "vision/newline", "O -> O"),
)
"""A CLIP tower, what maps its features to the width of the decoder, and what ends their lines."""
UNUSED_OF_TILES = tuple(
    f"vision_tower.{inner}{name}"
    for inner in ("", "vision_model.")
    for name in ("post_layernorm.weight", "post_layernorm.bias", "embeddings.position_ids")
)

_AUDIO_ROWS = (
    *_linear("conv1", "audio/conv1", "D M X -> X M D"),
    *_linear("conv2", "audio/conv2", "O D X -> X D O"),
    *_norm("layers.{L}.self_attn_layer_norm", "audio/layers/attention_norm"),
    *_linear("layers.{L}.self_attn.q_proj", "audio/layers/attention/query", "(N H) D -> D N H"),
    _weight("layers.{L}.self_attn.k_proj", "audio/layers/attention/key", "(N H) D -> D N H"),
    *_linear("layers.{L}.self_attn.v_proj", "audio/layers/attention/value", "(N H) D -> D N H"),
    *_linear("layers.{L}.self_attn.out_proj", "audio/layers/attention/output", "D (N H) -> N H D"),
    *_norm("layers.{L}.final_layer_norm", "audio/layers/mlp_norm"),
    *_linear("layers.{L}.fc1", "audio/layers/mlp/hidden", "F D -> D F"),
    *_linear("layers.{L}.fc2", "audio/layers/mlp/output", "D F -> F D"),
)
UNUSED_OF_OMNI_AUDIO = "audio_bos_eos_token.weight"
"""Two vectors on which no feature depends; transformers misses them nonetheless."""
OMNI_AUDIO_ROWS = (
    *_AUDIO_ROWS,
    *_norm("ln_post", "audio/final_norm"),
    *_linear("proj", "audio/output", "E D -> D E"),
)
WHISPER_ROWS = (
    *_AUDIO_ROWS,
    *_norm("layer_norm", "audio/final_norm"),
    _row("embed_positions.weight", "audio/positions", "S D -> S D"),
)
"""The encoder of Whisper, with the names of transformers' WhisperEncoder."""
