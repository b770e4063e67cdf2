"""Which model, and what of it trains."""

from dataclasses import dataclass, field
from typing import Literal

from lco_jax.config.checks import require

Tower = Literal["vision", "audio"]
LORA_TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclass(frozen=True)
class Lora:
    """Low-rank factors on the decoder's linear layers; everything else stays frozen.

    Source: LCO-Emb §4 (rank 64; alpha 16 text-only, 128 multimodal), released scripts (dropout).
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.05
    targets: tuple[str, ...] = LORA_TARGETS

    def __post_init__(self):
        unknown = set(self.targets) - set(LORA_TARGETS)
        require(not unknown, f"targets {sorted(unknown)} are unknown; use some of {LORA_TARGETS}")
        require(self.rank > 0, f"rank={self.rank} must be at least 1")
        require(0 <= self.dropout < 1, f"dropout={self.dropout} must be in [0, 1)")


@dataclass(frozen=True)
class Full:
    """All weights of the decoder train, in float32."""


@dataclass(frozen=True)
class Towers:
    """Towers, projectors and decoder train side by side, each at its own learning rate.

    The numbers multiply the learning rate of the optimizer; at 0 a part is frozen, and without
    gradient or optimizer state. Parts that the checkpoint or the run does not have are left out.
    """

    vision: float = 1.0
    """The vision tower up to its merger."""
    audio: float = 1.0
    """The audio tower up to its last norm."""
    projectors: float = 1.0
    """What maps features to the decoder's width: the vision tower's merger, the audio tower's last
    norm and projection."""
    decoder: Lora | Full | None = None
    """What of the decoder trains, at the learning rate itself (None: nothing)."""

    def __post_init__(self):
        for name in ("vision", "audio", "projectors"):
            value = getattr(self, name)
            require(value >= 0, f"{name}={value} multiplies the learning rate; it is negative")
        trains = self.vision or self.audio or self.projectors or self.decoder is not None
        require(bool(trains), "Towers trains nothing; give a part a multiplier above 0")


Trainable = Lora | Full | Towers


@dataclass(frozen=True)
class ModelRef:
    """A pre-trained model and what of it trains."""

    path: str
    """Hub folder, hub id, adapter folder or run folder; in a later stage, `PREVIOUS_STAGE` is what
    the one before leaves."""
    revision: str | None = None
    trainable: Trainable = field(default_factory=Lora)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of frozen weights and activations. Norms, softmax, losses and LoRA factors are float32."""
    num_layers: int | None = None
    """Keep only the first layers of the decoder (None: all)."""
    towers: tuple[Tower, ...] | None = None
    """Towers to load for training (None: all that the checkpoint has). A text-only run needs none;
    what embeds or exports the run has them all the same."""
