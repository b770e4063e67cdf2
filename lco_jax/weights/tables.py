"""What every tensor is called on the hub and in our tree, and how it lies in both.

A row is all there is to say about a tensor: loading reads the table from left to right, saving
from right to left, and the low-rank factors of an adapter are named by the same rows.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lco_jax.weights.layout import Layout

Key = tuple[str, int | None]
"""A tensor of our tree: its path, and its layer where the path holds a stack."""


@dataclass(frozen=True)
class Row:
    """One tensor; with `{L}` in its hub name, one per layer, stacked along a leading L."""

    hub: str
    """Name below the decoder (the output head: below the model)."""
    ours: str
    layout: Layout

    @property
    def is_stacked(self) -> bool:
        return "{L}" in self.hub

    @property
    def letters(self) -> str:
        """Dimensions of the (stacked) array in our tree."""
        return f"L {self.layout.ours}" if self.is_stacked else self.layout.ours

    def keys(self, num_layers: int) -> list[Key]:
        """The tensors of this row."""
        layers = range(num_layers) if self.is_stacked else (None,)
        return [(self.ours, layer) for layer in layers]


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


def _lora_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows of the factors A and B of every linear layer of the decoder."""
    return tuple(
        Row(
            row.hub.replace(".weight", f".lora_{factor}.weight"),
            row.ours.replace("/kernel", f"/lora_{factor.lower()}"),
            layout,
        )
        for row in rows
        if row.is_stacked and row.ours.endswith("/kernel")
        for factor, layout in zip("AB", row.layout.lora(), strict=True)
    )


LORA_ROWS = _lora_rows(TEXT_ROWS)

_DECODER_NAME = re.compile(
    r"(?:model\.language_model\.|language_model\.model\.|language_model\.|model\.)?"
    r"((?:embed_tokens|layers|norm)\..+)"
)
"""Every spelling in circulation, the bare one of a decoder saved without its wrapper included."""
_HEAD_NAME = re.compile(r"(?:model\.|language_model\.)?(lm_head\..+)")
_LAYER_NUMBER = re.compile(r"^layers\.(\d+)\.")


@dataclass(frozen=True)
class Assignment:
    """What each of a list of hub names is."""

    names: dict[Key, str] = field(default_factory=dict)
    """The hub name by tensor of our tree."""
    doubled: list[str] = field(default_factory=list)
    """Names of tensors that another name already gave."""
    towers: list[str] = field(default_factory=list)
    """Of vision and audio towers, which are not built yet."""
    ignored: list[str] = field(default_factory=list)
    """Of parts that no embedding depends on: the talker and its vocoder."""
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """The rows of a model family, and how its checkpoints spell their names."""

    family: str
    rows: tuple[Row, ...] = TEXT_ROWS
    prefix: str = ""
    """Written before every name, optional on reading."""
    wrapper: str = ""
    """Not written, but accepted after the prefix on reading."""
    decoder: str = "model."
    """Written before every name of the decoder."""
    adapter_decoder: str = "model.language_model."
    """The decoder's path in the class that an adapter is loaded into."""
    towers: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def row(self, path: str) -> Row:
        """The row of a path of our tree.

        Raises:
            KeyError: no row has that path.
        """
        for row in self.rows:
            if row.ours == path:
                return row
        raise KeyError(f"parameter {path!r} has no row in the {self.family} weight table")

    def name(self, key: Key) -> str:
        """The hub's own spelling of a tensor of our tree."""
        path, layer = key
        row = self.row(path)
        decoder = "" if row == HEAD else self.decoder
        return f"{self.prefix}{decoder}{row.hub.format(L=layer)}"

    def assign(self, names: Iterable[str]) -> Assignment:
        """Sort hub names, in any spelling, into what they are."""
        result = Assignment()
        for name in names:
            local = name.removeprefix(self.prefix).removeprefix(self.wrapper)
            key = self._key(local)
            if key in result.names:
                result.doubled.append(name)
            elif key is not None:
                result.names[key] = name
            elif local.removeprefix("model.").startswith(self.towers):
                result.towers.append(name)
            elif name.startswith(self.ignored):
                result.ignored.append(name)
            else:
                result.unknown.append(name)
        return result

    def adapter(self) -> "Table":
        """The table of a low-rank adapter on this family, with the names that peft writes.

        Source: peft save_pretrained: `base_model.model.` and the module's path in memory.
        """
        return replace(
            self,
            rows=LORA_ROWS,
            prefix="base_model.model.",
            wrapper=self.prefix or self.wrapper,
            decoder=self.adapter_decoder,
        )

    def _key(self, local: str) -> Key | None:
        match = _DECODER_NAME.fullmatch(local) or _HEAD_NAME.fullmatch(local)
        if match is None:
            return None
        number = _LAYER_NUMBER.match(match[1])
        hub = _LAYER_NUMBER.sub("layers.{L}.", match[1])
        for row in self.rows:
            if row.hub == hub:
                return row.ours, int(number[1]) if number else None
        return None


_OMNI_TOWERS = ("visual.", "audio_tower.")
_SPEECH = ("talker.", "token2wav.")

TABLES = {
    table.family: table
    for table in (
        Table("qwen2", adapter_decoder="model."),
        Table("qwen2_5_vl", towers=("visual.",)),
        Table("qwen2_5_omni", prefix="thinker.", towers=_OMNI_TOWERS, ignored=_SPEECH),
        Table("qwen2_5_omni_thinker", wrapper="thinker.", towers=_OMNI_TOWERS, ignored=_SPEECH),
    )
}
