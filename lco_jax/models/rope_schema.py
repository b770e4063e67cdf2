"""What of the rotary embeddings in a `config.json` is read.

Source: transformers `RotaryEmbeddingConfigMixin`, which leaves fields of other kinds unread.
"""

from typing import Literal

from pydantic import Field, model_validator

from lco_jax.models.field_types import Factor, One, Positions, Positive, Sections
from lco_jax.models.json_files import Schema
from lco_jax.nn.rope_scaling import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling

_Kind = Literal["default", "mrope", "linear", "llama3", "yarn"]
_OTHER_KINDS = (
    "'dynamic' and 'longrope' would make a vector depend on the other texts of its batch; for "
    "texts of up to max_position_embeddings tokens 'dynamic' is what 'default' is, so write that "
    "(without a factor); instead of a model with 'longrope' use another"
)
_LLAMA3 = ("low_freq_factor", "high_freq_factor")
_YARN = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
_FIELDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", *_LLAMA3),
    "yarn": ("factor", *_YARN),
}
"""That are read, by kind, besides those which all have."""
_REQUIRED = ("factor", *_LLAMA3)


class Rope(Schema):
    """How positions turn the pairs of a head."""

    rope_type: _Kind | None = Field(None, description=_OTHER_KINDS)
    type: _Kind | None = Field(None, description=_OTHER_KINDS)
    """As older files call it."""
    rope_theta: Positive | None = None
    original_max_position_embeddings: Positions | None = None
    factor: Factor | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    mscale: Positive | None = None
    mscale_all_dim: Positive | None = None
    truncate: bool | None = None
    mrope_section: Sections | None = None
    mrope_interleaved: bool | None = None
    partial_rotary_factor: One | None = None
    full_attention: None = None
    sliding_attention: None = None

    @property
    def kind(self) -> str:
        """One of `default`, `linear`, `llama3` and `yarn`."""
        return _plain(self.rope_type or self.type)

    @model_validator(mode="after")
    def _fits(self) -> "Rope":
        if self.rope_type and self.type and _plain(self.rope_type) != _plain(self.type):
            raise ValueError(f"rope_type={self.rope_type!r} and type={self.type!r} must not differ")
        read = _FIELDS[self.kind]
        for name in dict.fromkeys(name for names in _FIELDS.values() for name in names):
            value = getattr(self, name)
            if value is not None and name not in read and (name, value) != ("factor", 1):
                known = [kind for kind, names in _FIELDS.items() if name in names]
                raise ValueError(
                    f"{name}={value} is not read with rope_type={self.kind!r}; remove it, or give "
                    f"the rope_type that it is for, one of {known}"
                )
            if value is None and name in read and name in _REQUIRED:
                raise ValueError(f"lacks {name!r}, which rope_type={self.kind!r} needs")
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor={self.high_freq_factor} must exceed "
                f"low_freq_factor={self.low_freq_factor}"
            )
        return self

    def scaling(
        self, theta: float, trained: int | None, positions: int | None
    ) -> RopeScaling | None:
        """How the frequencies of long texts differ.

        Args:
            theta: of the decoder.
            trained: `original_max_position_embeddings` where it stands outside; it prevails.
            positions: `max_position_embeddings`, which stands for it where it is absent.

        Raises:
            ValueError: none of these says how long the texts of the training were.
        """
        if self.kind == "default":
            return None
        if self.kind == "linear":
            return LinearScaling(self.factor)
        trained = trained or self.original_max_position_embeddings or positions
        if trained is None:
            raise ValueError(
                f"lacks 'original_max_position_embeddings', which rope_type={self.kind!r} needs"
            )
        if self.kind == "llama3":
            factors = (getattr(self, name) for name in _REQUIRED)
            return Llama3Scaling(*factors, trained)
        if theta <= 1:
            raise ValueError(f"rope_theta={theta} must exceed 1 with rope_type='yarn'")
        given = {name: getattr(self, name) for name in _YARN if getattr(self, name) is not None}
        return YarnScaling(self.factor, trained, **given)


def _plain(kind: str | None) -> str:
    return "default" if kind in (None, "mrope") else kind
