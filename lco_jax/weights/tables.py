"""How the checkpoints of each family spell the names of their tensors."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from lco_jax.models.families import (
    LLAMA,
    LLAVA_NEXT,
    MISTRAL,
    QWEN2,
    QWEN2_5_OMNI,
    QWEN2_5_OMNI_THINKER,
    QWEN2_5_VL,
    QWEN3,
    QWEN3_VL,
)
from lco_jax.weights.rows import (
    DEEP_ROWS,
    HEAD,
    OMNI_AUDIO_ROWS,
    OMNI_VISION_ROWS,
    OUTPUT_BIAS,
    QK_NORMS,
    QKV_BIASES,
    TEXT_ROWS,
    TILE_ROWS,
    UNUSED_OF_OMNI_AUDIO,
    UNUSED_OF_TILES,
    VL_VISION_ROWS,
    Key,
    Row,
    lora_rows,
)

_DECODER_NAME = re.compile(
    r"(?:model\.language_model\.|language_model\.model\.|language_model\.|model\.)?"
    r"((?:embed_tokens|layers|norm)\..+)"
)
"""Every spelling in circulation, the bare one of a decoder saved without its wrapper included."""
_HEAD_NAME = re.compile(r"(?:model\.|language_model\.)?(lm_head\..+)")
_COMPUTED = re.compile(
    r"(?:(?:model|language_model)\.)*layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
)
"""What old files hold and every reader computes."""


@dataclass(frozen=True)
class Assignment:
    """What each of a list of hub names is."""

    names: dict[Key, str] = field(default_factory=dict)
    """The hub name by tensor of our tree."""
    doubled: list[str] = field(default_factory=list)
    """Names of tensors that another name already gave."""
    towers: list[str] = field(default_factory=list)
    """Of the family's vision and audio towers: no rows of the table at hand."""
    unused: list[str] = field(default_factory=list)
    """Of the part at hand, but no feature depends on them; exports copy them."""
    ignored: list[str] = field(default_factory=list)
    """Of parts that no embedding depends on: the talker and its vocoder."""
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tower:
    """A tower in the checkpoints of a family."""

    prefix: str
    """Written before its names, after that of the family."""
    rows: tuple[Row, ...]
    begins: tuple[str, ...] = ()
    """How its names begin, where they have no common prefix."""
    unused: tuple[str, ...] = ()
    """Tensors that every checkpoint holds and no forward pass reads."""


@dataclass(frozen=True)
class Table:
    """The rows of a model family, and how its checkpoints spell their names."""

    family: str
    rows: tuple[Row, ...] = (*TEXT_ROWS, *QKV_BIASES)
    """All that some checkpoint of the family has; its config says which."""
    prefix: str = ""
    """Written before every name, optional on reading."""
    wrapper: str = ""
    """Not written, but accepted after the prefix on reading."""
    decoder: str = "model."
    """Written before every name of the decoder (or of the tower whose rows these are)."""
    head: str = ""
    """Written before the name of the output head."""
    spellings: tuple[re.Pattern[str], ...] = (_DECODER_NAME, _HEAD_NAME)
    """Full names after prefix and wrapper; the first group is the name of a row."""
    adapter_decoder: str = "model.language_model."
    """The decoder's path in the class that an adapter is loaded into."""
    towers: Mapping[str, Tower] = field(default_factory=dict)
    """By the name under which our tree holds them."""
    unused: tuple[str, ...] = ()
    computed: re.Pattern[str] | None = None
    """Names of tensors that are unused, too."""
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
        path, place = key
        row = self.row(path)
        decoder = self.head if row == HEAD else self.decoder
        return f"{self.prefix}{decoder}{row.name(place)}"

    def assign(self, names: Iterable[str]) -> Assignment:
        """Sort hub names, in any spelling, into what they are."""
        result = Assignment()
        prefixes = tuple(
            begin
            for tower in self.towers.values()
            for begin in tower.begins or (tower.prefix.removeprefix("model."),)
        )
        for name in names:
            local = name.removeprefix(self.prefix).removeprefix(self.wrapper)
            key = self._key(local)
            if key in result.names:
                result.doubled.append(name)
            elif key is not None:
                result.names[key] = name
            elif local.removeprefix("model.").startswith(prefixes):
                result.towers.append(name)
            elif self._is_unused(local):
                result.unused.append(name)
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
            rows=lora_rows(self.rows),
            prefix="base_model.model.",
            decoder=self.adapter_decoder,
        )

    def tower(self, name: str) -> "Table":
        """The table of one tower of this family, for the names that `assign` finds to be of
        towers.
        """
        tower = self.towers[name]
        prefix = re.escape(tower.prefix.removeprefix("model."))
        return replace(
            self,
            rows=tower.rows,
            decoder=tower.prefix,
            spellings=(re.compile(rf"(?:model\.)?{prefix}(.+)"),),
            towers={other: self.towers[other] for other in self.towers if other != name},
            unused=tower.unused,
        )

    def _is_unused(self, local: str) -> bool:
        if self.computed and self.computed.fullmatch(local):
            return True
        return local.removeprefix("model.").removeprefix(self.decoder) in self.unused

    def _key(self, local: str) -> Key | None:
        for spelling in self.spellings:
            match = spelling.fullmatch(local)
            for row in self.rows if match else ():
                key = row.key(match[1])
                if key is not None:
                    return key
        return None


_OMNI = {
    "towers": {
        "vision": Tower("visual.", OMNI_VISION_ROWS),
        "audio": Tower("audio_tower.", OMNI_AUDIO_ROWS, unused=(UNUSED_OF_OMNI_AUDIO,)),
    },
    "ignored": ("talker.", "token2wav."),
}

_TILES = Tower(
    "",
    TILE_ROWS,
    begins=("vision_tower.", "multi_modal_projector.", "image_newline"),
    unused=UNUSED_OF_TILES,
)

TABLES = {
    table.family: table
    for table in (
        Table(QWEN2.name, adapter_decoder="model."),
        Table(
            QWEN3.name,
            rows=(*TEXT_ROWS, *QKV_BIASES, *OUTPUT_BIAS, *QK_NORMS),
            adapter_decoder="model.",
        ),
        Table(
            LLAMA.name,
            rows=(*TEXT_ROWS, *QKV_BIASES, *OUTPUT_BIAS),
            adapter_decoder="model.",
            computed=_COMPUTED,
        ),
        Table(MISTRAL.name, rows=TEXT_ROWS, adapter_decoder="model.", computed=_COMPUTED),
        Table(QWEN2_5_VL.name, towers={"vision": Tower("visual.", VL_VISION_ROWS)}),
        Table(
            QWEN3_VL.name,
            rows=(*TEXT_ROWS, *QKV_BIASES, *OUTPUT_BIAS, *QK_NORMS),
            decoder="model.language_model.",
            towers={"vision": Tower("model.visual.", DEEP_ROWS)},
        ),
        Table(
            LLAVA_NEXT.name,
            rows=(*TEXT_ROWS, *QKV_BIASES, *OUTPUT_BIAS),
            decoder="language_model.model.",
            head="language_model.",
            towers={"vision": _TILES},
            computed=_COMPUTED,
        ),
        Table(QWEN2_5_OMNI.name, prefix="thinker.", **_OMNI),
        Table(QWEN2_5_OMNI_THINKER.name, wrapper="thinker.", **_OMNI),
    )
}
"""By the name of the family."""
