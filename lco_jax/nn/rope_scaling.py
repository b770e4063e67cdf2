"""Frequencies of rotary embeddings, and how those of longer texts than were trained on differ."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Frequencies = Float[np.ndarray, "h"]
"""By which positions are multiplied, one for each of the H / 2 pairs of a head."""


@dataclass(frozen=True)
class LinearScaling:
    """All frequencies are divided by one factor.

    Source: transformers `_compute_linear_scaling_rope_parameters`.
    """

    factor: float

    def apply(self, frequencies: Frequencies, theta: float) -> tuple[Frequencies, float]:
        """The scaled frequencies, and the factor of cosine and sine."""
        del theta
        return frequencies / np.float32(self.factor), 1.0


@dataclass(frozen=True)
class Llama3Scaling:
    """Waves longer than the texts of the training are slowed down, short ones are kept.

    Source: transformers `_compute_llama3_parameters`.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    trained_positions: int

    def apply(self, frequencies: Frequencies, theta: float) -> tuple[Frequencies, float]:
        """The scaled frequencies, and the factor of cosine and sine."""
        del theta
        turns = self.trained_positions * frequencies / (2 * np.pi)
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return _mix(frequencies, self.factor, kept), 1.0


@dataclass(frozen=True)
class YarnScaling:
    """As `Llama3Scaling`, by the number of the frequency; attention is sharper for all texts.

    Source: transformers `_compute_yarn_parameters`.
    """

    factor: float
    trained_positions: int
    beta_fast: float = 32.0
    """Pairs that turn more often over the texts of the training are kept."""
    beta_slow: float = 1.0
    """Those that turn less often are slowed down whole."""
    attention_factor: float | None = None
    """Of cosine and sine (None: as the paper suggests)."""
    mscale: float | None = None
    mscale_all_dim: float | None = None
    """Of the suggestion; they count together."""
    truncate: bool = True
    """Whether the ends of the ramp are whole numbers."""

    def apply(self, frequencies: Frequencies, theta: float) -> tuple[Frequencies, float]:
        """The scaled frequencies, and the factor of cosine and sine."""
        half = len(frequencies)
        first, last = (
            half * math.log(self.trained_positions / (beta * 2 * math.pi)) / math.log(theta)
            for beta in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, 2 * half - 1)
        if first == last:
            last += 0.001
        slowed = (np.arange(half, dtype=np.float32) - first) / (last - first)
        return _mix(frequencies, self.factor, 1 - slowed), self._scale()

    def _scale(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._suggested(self.mscale) / self._suggested(self.mscale_all_dim)
        return self._suggested(1.0)

    def _suggested(self, mscale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * mscale * math.log(self.factor) + 1.0


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


def rope_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None
) -> tuple[Frequencies, float]:
    """The frequencies of a decoder, and the factor of cosine and sine."""
    half = head_dim // 2
    frequencies = theta ** (-np.arange(half, dtype=np.float32) / np.float32(half))
    return scaling.apply(frequencies, theta) if scaling else (frequencies, 1.0)


def _mix(frequencies: Frequencies, factor: float, kept: Frequencies) -> Frequencies:
    """Frequencies of which the share `kept` (cut to 0..1) stays, and the rest is divided."""
    kept = np.clip(kept, 0, 1).astype(np.float32)
    return frequencies * (kept + (1 - kept) / np.float32(factor))
