"""Sizes of a model, read from the `config.json` of its checkpoint."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco_jax.models.tokens import MediaTokens, read_media_tokens
from lco_jax.models.tower_config import AudioConfig, VisionConfig, read_audio, read_vision

FAMILIES = ("qwen2", "qwen2_5_vl", "qwen2_5_omni", "qwen2_5_omni_thinker")


@dataclass(frozen=True)
class TextConfig:
    """The Qwen2.5 decoder."""

    vocab_size: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    mrope_section: tuple[int, ...] | None
    """How many of the head_dim / 2 frequencies turn with time, height and width (None: all with
    the text position)."""
    norm_eps: float
    tie_embeddings: bool

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes by dimension letter (see `lco_jax.runtime.axes`)."""
        return {
            "V": self.vocab_size,
            "L": self.num_layers,
            "D": self.hidden_size,
            "F": self.intermediate_size,
            "N": self.num_heads,
            "K": self.num_kv_heads,
            "H": self.head_dim,
        }


@dataclass(frozen=True)
class ModelConfig:
    """A checkpoint's family and the sizes of its parts."""

    family: str
    text: TextConfig
    vision: VisionConfig | None = None
    audio: AudioConfig | None = None
    media_tokens: MediaTokens | None = None

    def with_towers(self, towers: Sequence[str]) -> "ModelConfig":
        """The same model without the towers that are not named."""
        kept = {name: getattr(self, name) for name in towers}
        for name, tower in kept.items():
            if tower is None:
                raise ValueError(f"a {self.family} checkpoint has no {name} tower to load")
        return dataclasses.replace(self, **{"vision": None, "audio": None, **kept})

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
        ValueError: no `config.json`, or one that `from_hf` refuses.
    """
    file = Path(folder) / "config.json"
    if not file.exists():
        raise ValueError(f"{folder} is not a model folder: it has no config.json")
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}; fetch it again") from error
    return from_hf(config)


def from_hf(config: dict[str, Any]) -> ModelConfig:
    """Read the sizes out of a `config.json`, flat (as on the hub) or nested (as transformers 5).

    Raises:
        ValueError: unknown family, missing field, or a feature the decoder does not have.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type={family!r} is not supported; supported are {FAMILIES}")
    outer = config["thinker_config"] if family == "qwen2_5_omni" else config
    text = outer.get("text_config", outer)

    def read(name: str) -> Any:
        if name not in text:
            raise ValueError(f"config.json of a {family} model lacks {name!r}")
        return text[name]

    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise ValueError(f"rope type {kind!r} is not supported; supported are default and mrope")
    if text.get("use_sliding_window"):
        raise ValueError("use_sliding_window=true is not supported; no Qwen2.5 checkpoint uses it")
    if text.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act={text['hidden_act']!r} is not supported; expected 'silu'")
    theta = rope.get("rope_theta") or read("rope_theta")
    sections = rope.get("mrope_section")
    num_heads = read("num_attention_heads")
    head_dim = text.get("head_dim") or read("hidden_size") // num_heads
    if sections is not None and sum(sections) * 2 != head_dim:
        raise ValueError(f"mrope_section={sections} must sum to head_dim / 2 = {head_dim // 2}")
    return ModelConfig(
        family=family,
        text=TextConfig(
            vocab_size=read("vocab_size"),
            num_layers=read("num_hidden_layers"),
            hidden_size=read("hidden_size"),
            intermediate_size=read("intermediate_size"),
            num_heads=num_heads,
            num_kv_heads=text.get("num_key_value_heads") or num_heads,
            head_dim=head_dim,
            rope_theta=float(theta),
            mrope_section=None if sections is None else tuple(sections),
            norm_eps=float(read("rms_norm_eps")),
            tie_embeddings=_tied(config, outer, text),
        ),
        vision=read_vision(outer),
        audio=read_audio(outer),
        media_tokens=read_media_tokens(outer, with_audio="omni" in family),
    )


def _tied(config: dict[str, Any], outer: dict[str, Any], text: dict[str, Any]) -> bool:
    # Omni's text_config carries a class default of true; the outer config decides.
    for level in (config, outer, text):
        if "tie_word_embeddings" in level:
            return bool(level["tie_word_embeddings"])
    return False


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
    return from_hf(json.loads(file.read_text()))
