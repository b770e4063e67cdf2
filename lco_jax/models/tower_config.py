"""Sizes of the vision and audio towers, read from the `config.json` of a checkpoint."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VisionConfig:
    """The Qwen2.5 vision tower."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_size: int
    """Width of the decoder that reads the features."""
    full_layers: tuple[int, ...]
    """Layers in which a patch attends to its whole frame; in all others to its window."""
    num_channels: int
    patch_px: int
    window_px: int
    merge_size: int
    """Patches of a side of the square that becomes one token (a merge unit)."""
    frames_per_patch: int
    """Video frames of a patch; an image is repeated as often."""
    ids_per_second: float
    """M-RoPE time ids of a second of video."""

    def __post_init__(self):
        if self.hidden_size % (4 * self.num_heads):
            raise ValueError(
                f"vision hidden_size={self.hidden_size} must be a multiple of 4 * num_heads = "
                f"{4 * self.num_heads}: rows and columns each turn pairs of half a head"
            )
        if self.window_px % (self.patch_px * self.merge_size):
            raise ValueError(
                f"window_size={self.window_px} must be a multiple of patch_size * "
                f"spatial_merge_size = {self.patch_px * self.merge_size}"
            )
        if not set(self.full_layers) <= set(range(self.num_layers)):
            raise ValueError(
                f"fullatt_block_indexes={self.full_layers} must lie in 0..{self.num_layers - 1}"
            )

    @property
    def unit_patches(self) -> int:
        """Patches of a merge unit."""
        return self.merge_size**2

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes by dimension letter (see `lco_jax.models.vision`)."""
        return {
            "D": self.hidden_size,
            "F": self.intermediate_size,
            "N": self.num_heads,
            "H": self.hidden_size // self.num_heads,
            "C": self.num_channels,
            "T": self.frames_per_patch,
            "Y": self.patch_px,
            "X": self.patch_px,
            "U": self.unit_patches,
            "E": self.out_size,
        }

    @property
    def merger_sizes(self) -> dict[str, int]:
        """Those of the merger, whose hidden layer is as wide as the merge unit that it reads."""
        return {**self.sizes, "F": self.unit_patches * self.hidden_size}


@dataclass(frozen=True)
class AudioConfig:
    """The Qwen2.5-Omni audio tower; without pooling and projection, the encoder of Whisper."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_mels: int
    chunk_frames: int
    """Mel frames that are encoded together, without context from their neighbours."""
    out_size: int | None
    """Width of the decoder that reads the features, each of two neighbouring rows (None: every
    row is a feature of its own, of width `hidden_size`, as in Whisper)."""
    has_stored_positions: bool = False
    """Whether positions are weights, as in Whisper, or computed."""
    seconds_per_turn: float = 2.0
    """In a video with audio, after so long the tokens of one give way to those of the other."""

    def __post_init__(self):
        if self.hidden_size % self.num_heads or self.hidden_size % 2:
            raise ValueError(
                f"audio d_model={self.hidden_size} must be even (half sines, half cosines) and a "
                f"multiple of encoder_attention_heads={self.num_heads}"
            )
        if self.chunk_frames < 4 or self.chunk_frames % 4:
            raise ValueError(
                f"audio chunks of {self.chunk_frames} frames (2 * n_window) must be a multiple of "
                "4, so that no pair of neighbouring rows lies in two chunks"
            )

    @property
    def chunk_rows(self) -> int:
        """Rows that the layers see of a chunk: the second convolution halves the frames."""
        return self.chunk_frames // 2

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes by dimension letter (see `lco_jax.models.audio`)."""
        return {
            "D": self.hidden_size,
            "O": self.hidden_size,
            "F": self.intermediate_size,
            "N": self.num_heads,
            "H": self.hidden_size // self.num_heads,
            "M": self.num_mels,
            "X": 3,
            "S": self.chunk_rows,
            "E": self.out_size or self.hidden_size,
        }


def read_vision(outer: dict[str, Any]) -> VisionConfig | None:
    """The vision tower in a config (of an Omni model: in its thinker's), if it has one.

    Raises:
        ValueError: missing field, or a feature the tower does not have.
    """
    if "vision_config" not in outer:
        return None
    vision = outer["vision_config"]

    def read(*names: str) -> Any:
        for name in names:
            if name in vision:
                return vision[name]
        raise ValueError(f"vision_config of config.json lacks {names[0]!r}")

    if vision.get("hidden_act", "silu") != "silu":
        raise ValueError(f"vision hidden_act={vision['hidden_act']!r} is not supported")
    # Omni counts time outside its tower; the field of the same purpose inside is not used.
    ids_per_second = outer.get("position_id_per_seconds") or read("tokens_per_second")
    return VisionConfig(
        num_layers=read("depth"),
        hidden_size=read("hidden_size"),
        intermediate_size=read("intermediate_size"),
        num_heads=read("num_heads"),
        out_size=read("out_hidden_size"),
        full_layers=tuple(read("fullatt_block_indexes")),
        num_channels=read("in_channels", "in_chans"),
        patch_px=read("patch_size"),
        window_px=read("window_size"),
        merge_size=read("spatial_merge_size"),
        frames_per_patch=read("temporal_patch_size"),
        ids_per_second=float(ids_per_second),
    )


def read_audio(outer: dict[str, Any]) -> AudioConfig | None:
    """The audio tower in a thinker's config, if it has one.

    Raises:
        ValueError: missing field, or a feature the tower does not have.
    """
    if "audio_config" not in outer:
        return None
    audio = outer["audio_config"]

    def read(name: str) -> Any:
        if name not in audio:
            raise ValueError(f"audio_config of config.json lacks {name!r}")
        return audio[name]

    neutral = {"activation_function": "gelu", "scale_embedding": False}
    neutral |= dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0)
    for name, value in neutral.items():
        if audio.get(name, value) != value:
            raise ValueError(f"audio {name}={audio[name]!r} is not supported; expected {value!r}")
    if read("n_window") > read("max_source_positions"):
        raise ValueError(
            f"audio n_window={audio['n_window']} exceeds the number of positions, "
            f"max_source_positions={audio['max_source_positions']}"
        )
    return AudioConfig(
        num_layers=read("encoder_layers"),
        hidden_size=read("d_model"),
        intermediate_size=read("encoder_ffn_dim"),
        num_heads=read("encoder_attention_heads"),
        num_mels=read("num_mel_bins"),
        chunk_frames=2 * read("n_window"),
        out_size=read("output_dim"),
        seconds_per_turn=float(outer.get("seconds_per_chunk", 2)),
    )
