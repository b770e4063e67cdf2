"""Sizes of the decoder, read from the `config.json` of a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lco_jax.models.hf_schemas import Text
from lco_jax.models.json_files import check, naming
from lco_jax.nn.rope_scaling import RopeScaling


@dataclass(frozen=True)
class DecoderTraits:
    """In what the decoders of a family differ from those of others, whatever their sizes."""

    biases: Literal["qkv", "none", "asked"] = "qkv"
    """Query, key and value have biases, or nothing has; `asked`: where `attention_bias` is true
    these three have them, and so has the output."""
    has_qk_norm: bool = False
    """Whether each head of queries and keys is normed before it is turned."""
    interleaves_axes: bool = False
    """Whether the frequencies that turn with time, height and width take turns, or follow each
    other in blocks."""
    assumed: Mapping[str, Any] = field(default_factory=dict)
    """What transformers takes fields of `config.json` to be that are absent."""


@dataclass(frozen=True)
class TextConfig:
    """A decoder: causal grouped-query attention with rotary positions, SwiGLU, RMS norms."""

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
    has_output_bias: bool = False
    """Whether what maps attended values to the model width has one."""
    has_qk_norm: bool = False
    """Whether each head of queries and keys is normed before it is turned."""
    interleaves_axes: bool = False
    """Whether these frequencies take turns, or follow each other in blocks."""
    rope_scaling: RopeScaling | None = None
    """How the frequencies of texts longer than those of the training differ."""

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


def read_text(
    config: dict[str, Any], outer: dict[str, Any], where: str, traits: DecoderTraits
) -> TextConfig:
    """The decoder in a config.

    Args:
        config: the whole file.
        outer: the level that describes towers and decoder (of an Omni model: its thinker's).
        where: what errors call that level.
        traits: of all models of the family.

    Raises:
        ValueError: missing or wrong field, or a feature the decoder does not have.
    """
    level = text_level(outer)
    where = where if level is outer else f"{where}: text_config"
    text = check(Text, _completed(level, traits.assumed), where)
    allowed = {"qkv": True, "none": False}.get(traits.biases, text.attention_bias)
    if text.attention_bias not in (None, allowed):
        raise ValueError(
            f"{where}: attention_bias={text.attention_bias} is not supported; expected {allowed}"
        )
    rope, head_dim = text.rope, text.head_dim or text.hidden_size // text.num_attention_heads
    theta = rope.rope_theta or text.rope_theta
    with naming(where):
        scaling = rope.scaling(
            theta, text.original_max_position_embeddings, text.max_position_embeddings
        )
    sections = rope.mrope_section
    if sections is not None and sum(sections) * 2 != head_dim:
        raise ValueError(
            f"{where}: mrope_section={sections} must sum to head_dim / 2 = {head_dim // 2}"
        )
    if rope.mrope_interleaved not in (None, traits.interleaves_axes):
        raise ValueError(
            f"{where}: mrope_interleaved={rope.mrope_interleaved} is not supported in models of "
            f"this model_type; expected {traits.interleaves_axes}"
        )
    # Omni's text_config carries a class default of true; the outermost level that says it decides.
    tied = [level[_TIED] for level in (config, outer, level) if level.get(_TIED) is not None]
    return TextConfig(
        vocab_size=text.vocab_size,
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_heads=text.num_attention_heads,
        num_kv_heads=text.num_key_value_heads or text.num_attention_heads,
        head_dim=head_dim,
        rope_theta=theta,
        mrope_section=None if sections is None else tuple(sections),
        norm_eps=text.rms_norm_eps,
        tie_embeddings=bool(tied and tied[0]),
        has_qkv_bias=bool(allowed),
        has_output_bias=traits.biases == "asked" and bool(allowed),
        has_qk_norm=traits.has_qk_norm,
        interleaves_axes=traits.interleaves_axes,
        rope_scaling=scaling,
    )


def _completed(level: dict[str, Any], assumed: Mapping[str, Any]) -> dict[str, Any]:
    """A level with what is assumed of fields that it lacks."""
    ropes = [level.get(name) for name in ("rope_parameters", "rope_scaling")]
    if any(isinstance(rope, Mapping) and rope.get("rope_theta") is not None for rope in ropes):
        assumed = {name: value for name, value in assumed.items() if name != "rope_theta"}
    return {**assumed, **level}
