"""Sizes of the vision and audio towers, read from the `config.json` of a checkpoint."""

from dataclasses import dataclass
from typing import Any

from lco_jax.models.hf_schemas import Audio, Vision
from lco_jax.models.json_files import check, naming


class PatchTower:
    """What follows from the sizes of towers whose patches lie in grids and whose merge units are
    tokens."""

    deep_layers: tuple[int, ...]
    """Inner layers whose output gives features, too."""
    _mlp_matrices: int

    has_grids = True
    """Whether patches have rows and columns."""
    extra_features = 0
    """Behind those of the patches."""

    def _check_heads(self) -> None:
        if self.hidden_size % (4 * self.num_heads):
            raise ValueError(
                f"vision hidden_size={self.hidden_size} must be a multiple of 4 * num_heads = "
                f"{4 * self.num_heads}: rows and columns each turn pairs of half a head"
            )

    @property
    def num_stored_layers(self) -> int:
        """Of the checkpoint: all of them run."""
        return self.num_layers

    @property
    def unit_patches(self) -> int:
        """Patches of a merge unit."""
        return self.merge_size**2

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes by dimension letter (see `lco_jax.models.vision` and `deep`)."""
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
        """Those of a merger, whose hidden layer is as wide as the merge unit that it reads."""
        return {**self.sizes, "F": self.unit_patches * self.hidden_size}

    @property
    def matrix_weights(self) -> int:
        """The weights that multiply every patch, those of mergers shared by a unit's."""
        width = self.hidden_size
        layer = width * (4 * width + self._mlp_matrices * self.intermediate_size)
        return self.embed_weights + self.num_layers * layer + self.projector_weights

    @property
    def embed_weights(self) -> int:
        """Of the matrix weights those that read pixels."""
        size = self.sizes
        return size["C"] * size["T"] * size["Y"] * size["X"] * size["D"]

    @property
    def projector_weights(self) -> int:
        """Of the matrix weights those of mergers."""
        size, width = self.sizes, self.hidden_size
        merge = size["U"] * width * width + width * size["E"]
        return (1 + len(self.deep_layers)) * merge


@dataclass(frozen=True)
class VisionConfig(PatchTower):
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
        self._check_heads()
        if self.window_px % (self.patch_px * self.merge_size):
            raise ValueError(
                f"window_size={self.window_px} must be a multiple of patch_size * "
                f"spatial_merge_size = {self.patch_px * self.merge_size}"
            )
        if not set(self.full_layers) <= set(range(self.num_layers)):
            raise ValueError(
                f"fullatt_block_indexes={self.full_layers} must lie in 0..{self.num_layers - 1}"
            )

    has_windows = True
    """Whether layers see windows of an image."""
    deep_layers = ()
    _mlp_matrices = 3


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

    deep_layers = ()
    """Inner layers whose output gives features, too."""

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
    def num_stored_layers(self) -> int:
        """Of the checkpoint: all of them run."""
        return self.num_layers

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


def read_vision(outer: dict[str, Any], where: str, width: int) -> VisionConfig | None:
    """The vision tower in a config (of an Omni model: in its thinker's), if it has one.

    Args:
        where: what errors call the config.
        width: of the decoder that reads the features.

    Raises:
        ValueError: missing or wrong field, or a feature the tower does not have.
    """
    if outer.get("vision_config") is None:
        return None
    where = f"{where}: vision_config"
    vision = check(Vision, outer["vision_config"], where)
    # Omni counts time outside its tower; the field of the same purpose inside is not used.
    ids_per_second = outer.get("position_id_per_seconds") or vision.tokens_per_second
    for name, value in (
        ("tokens_per_second", ids_per_second),
        ("in_channels", vision.in_channels or vision.in_chans),
    ):
        if value is None:
            raise ValueError(f"{where}: lacks {name!r}")
    check_width(vision.out_hidden_size, width, where)
    with naming(where):
        return VisionConfig(
            num_layers=vision.depth,
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            num_heads=vision.num_heads,
            out_size=vision.out_hidden_size,
            full_layers=tuple(vision.fullatt_block_indexes),
            num_channels=3,
            patch_px=vision.patch_size,
            window_px=vision.window_size,
            merge_size=vision.spatial_merge_size,
            frames_per_patch=vision.temporal_patch_size,
            ids_per_second=float(ids_per_second),
        )


def read_audio(outer: dict[str, Any], where: str, width: int) -> AudioConfig | None:
    """The audio tower in a thinker's config, if it has one.

    Args:
        where: what errors call the config.
        width: of the decoder that reads the features.

    Raises:
        ValueError: missing or wrong field, or a feature the tower does not have.
    """
    if outer.get("audio_config") is None:
        return None
    where = f"{where}: audio_config"
    audio = check(Audio, outer["audio_config"], where)
    check_width(audio.output_dim, width, where)
    with naming(where):
        return AudioConfig(
            num_layers=audio.encoder_layers,
            hidden_size=audio.d_model,
            intermediate_size=audio.encoder_ffn_dim,
            num_heads=audio.encoder_attention_heads,
            num_mels=audio.num_mel_bins,
            chunk_frames=2 * audio.n_window,
            out_size=audio.output_dim,
            seconds_per_turn=float(outer.get("seconds_per_chunk") or 2),
        )


def check_width(features: int, width: int, where: str) -> None:
    """Refuse a tower whose features do not fit the decoder.

    Args:
        features: their width.
        width: of the decoder.
        where: what errors call the tower.

    Raises:
        ValueError: they differ.
    """
    if features != width:
        raise ValueError(
            f"{where}: features of the tower have {features} values, token embeddings {width} "
            "(hidden_size); they must be equal"
        )
