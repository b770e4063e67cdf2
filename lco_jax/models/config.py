"""Sizes of a model, read from the `config.json` of its checkpoint."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco_jax.models.adapter_config import is_adapter, read_adapter_config
from lco_jax.models.deep_config import DeepConfig
from lco_jax.models.families import FAMILIES
from lco_jax.models.hf_schemas import Reader, Whole
from lco_jax.models.json_files import check, read_object
from lco_jax.models.text_config import TextConfig, read_text
from lco_jax.models.tile_config import TileConfig
from lco_jax.models.tokens import Kind, MediaTokens, read_media_tokens
from lco_jax.models.tower_config import AudioConfig, VisionConfig


@dataclass(frozen=True)
class ModelConfig:
    """A checkpoint's family and the sizes of its parts."""

    family: str
    """A name in `FAMILIES`."""
    text: TextConfig
    vision: VisionConfig | DeepConfig | TileConfig | None = None
    audio: AudioConfig | None = None
    media_tokens: MediaTokens | None = None

    def with_towers(self, towers: Sequence[str]) -> "ModelConfig":
        """The same model without the towers that are not named."""
        kept = {name: getattr(self, name) for name in towers}
        for name, tower in kept.items():
            if tower is None:
                raise ValueError(f"a {self.family} checkpoint has no {name} tower to load")
        return dataclasses.replace(self, **{"vision": None, "audio": None, **kept})

    @property
    def feature_size(self) -> int:
        """Values of a feature of a medium: those that take the place of a token's embedding, and
        behind them those that are added to its states after the first layers."""
        deep = self.vision.deep_layers if self.vision is not None else ()
        return (1 + len(deep)) * self.text.hidden_size

    @property
    def placeholders(self) -> dict[Kind, int]:
        """The token that stands for a medium, by the kinds that the towers read."""
        if self.media_tokens is None:
            return {}
        return {
            kind: getattr(self.media_tokens, kind)
            for kind in FAMILIES[self.family].kinds
            if (self.audio if kind == "audio" else self.vision) is not None
        }

    def first_layers(self, num_layers: int | None) -> "ModelConfig":
        """The same model cut to its first decoder layers (None: unchanged)."""
        if num_layers is None:
            return self
        if not 0 < num_layers <= self.text.num_layers:
            raise ValueError(
                f"num_layers={num_layers} is not in 1..{self.text.num_layers}, "
                "the number of layers of the checkpoint"
            )
        return dataclasses.replace(self, text=dataclasses.replace(self.text, num_layers=num_layers))


def read_config(folder: Path) -> ModelConfig:
    """The sizes of the checkpoint in `folder`.

    Raises:
        ValueError: no `config.json`, or one that `from_hf` refuses; or the folder holds an adapter.
    """
    file = Path(folder) / "config.json"
    if is_adapter(Path(folder)):
        base = read_adapter_config(Path(folder)).base_model_name_or_path
        raise ValueError(
            f"{folder} holds an adapter of the model {base!r}, and has no sizes of its own; "
            "`weights.resolve.resolve_folder` gives the folder that joins both"
        )
    if not file.exists():
        raise ValueError(f"{folder} is not a model folder: it has no config.json")
    return from_hf(read_object(file), str(file))


def from_hf(config: dict[str, Any], where: str = "config.json") -> ModelConfig:
    """Read the sizes out of a `config.json`, flat (as on the hub) or nested (as transformers 5).

    Args:
        where: what errors call the file.

    Raises:
        ValueError: unknown family, missing or wrong field, or a feature the model does not have.
    """
    name = check(Whole, config, where).model_type
    if name not in FAMILIES:
        raise ValueError(
            f"{where}: model_type={name!r} is not supported; supported are {tuple(FAMILIES)}"
        )
    family = FAMILIES[name]
    if family.thinker and not config.get("thinker_config"):
        raise ValueError(f"{where}: lacks 'thinker_config'")
    outer = family.reader_level(config)
    where = where if outer is config else f"{where}: thinker_config"
    check(Reader, outer, where)
    text = read_text(config, outer, where, family.traits(outer, where))
    width = text.hidden_size
    towers = {tower: read(outer, where, width) for tower, read in family.towers.items()}
    if family.has_axes and text.mrope_section is None:
        raise ValueError(f"{where}: lacks 'mrope_section' among the rope parameters of the text")
    tokens = read_media_tokens(outer, family.tokens, text.vocab_size, where)
    return ModelConfig(family=name, text=text, media_tokens=tokens, **towers)


def public_config(name: str) -> ModelConfig:
    """The sizes of a public checkpoint by hub id, without the hub: for dry runs and plans.

    Raises:
        ValueError: no such checkpoint is known; the message lists those that are.
    """
    folder = Path(__file__).parent / "sizes"
    file = folder / f"{name.rpartition('/')[2]}.json"
    if not file.exists():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.json")))
        raise ValueError(f"{name} is no model folder, and its sizes are not known; known: {known}")
    return from_hf(read_object(file), str(file))
