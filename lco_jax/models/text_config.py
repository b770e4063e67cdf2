"""Sizes of the decoder, read from the `config.json` of a checkpoint."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextConfig:
    """A decoder of the kind of Qwen2.5."""

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
    has_qkv_bias: bool = True
    """Whether query, key and value have biases."""

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


_TIED = "tie_word_embeddings"


def text_level(outer: dict[str, Any]) -> dict[str, Any]:
    """Where a config keeps the decoder's fields: flat (as on the hub) or nested (as transformers
    5 writes them).
    """
    return outer.get("text_config", outer)


def read_text(config: dict[str, Any], outer: dict[str, Any]) -> TextConfig:
    """The decoder in a config.

    Args:
        config: the whole file.
        outer: the level that describes towers and decoder (of an Omni model: its thinker's).

    Raises:
        ValueError: missing field, or a feature the decoder does not have.
    """
    text = text_level(outer)

    def read(name: str) -> Any:
        if name not in text:
            raise ValueError(f"config.json of a {config['model_type']} model lacks {name!r}")
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
    # Omni's text_config carries a class default of true; the outermost level that says it decides.
    tied = [level[_TIED] for level in (config, outer, text) if _TIED in level]
    return TextConfig(
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
        tie_embeddings=bool(tied and tied[0]),
    )
