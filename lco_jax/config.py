"""Every setting of a run, as frozen dataclasses.

A `TrainConfig` has *science* fields, which decide the numbers of a run, and *execution* fields,
which decide only where and how fast they are computed. A resume accepts any change of execution
and refuses a change of science (`lco_jax/config_io.py`).
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

Tower = Literal["vision", "audio"]
LORA_TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


# ---------------------------------------------------------------------------- what is trained


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
        _require(not unknown, f"targets {sorted(unknown)} are unknown; use some of {LORA_TARGETS}")
        _require(self.rank > 0, f"rank={self.rank} must be at least 1")
        _require(0 <= self.dropout < 1, f"dropout={self.dropout} must be in [0, 1)")


@dataclass(frozen=True)
class Full:
    """All weights of the decoder train, in float32."""


@dataclass(frozen=True)
class ModelRef:
    """A pre-trained model and what of it trains."""

    path: str
    """Hub folder, hub id, or run folder."""
    revision: str | None = None
    trainable: Lora | Full = field(default_factory=Lora)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of frozen weights and activations. Norms, softmax, losses and LoRA factors are float32."""
    num_layers: int | None = None
    """Keep only the first layers of the decoder (None: all)."""
    towers: tuple[Tower, ...] | None = None
    """Towers to load for training (None: all that the checkpoint has). A text-only run needs none;
    what embeds or exports the run has them all the same."""


# ------------------------------------------------------------------------------- objective


@dataclass(frozen=True)
class Contrastive:
    """One-way InfoNCE over the positives and negatives of the whole global batch.

    Source: LCO-Emb released trainers (temperature 0.03, constant).
    """

    temperature: float = 0.03
    symmetric: bool = False
    """Also classify each positive's anchor among all anchors."""
    mask_duplicates: bool = False
    """Drop candidates whose content equals the anchor's own or its positive's."""
    false_negative_margin: float | None = None
    """Drop candidates whose cosine exceeds the positive's by more than this margin."""
    matryoshka_dims: tuple[int, ...] = ()
    """Additional widths at which the loss is taken; the mean over all widths is minimised."""

    def __post_init__(self):
        _require(self.temperature > 0, f"temperature={self.temperature} must be positive")


# ------------------------------------------------------------------------------------ data


@dataclass(frozen=True)
class JsonlSource:
    """Triplets or pairs in JSON Lines (the format of the official repository, or its superset)."""

    path: str
    weight: float = 1.0
    """Relative share of the mixture."""
    max_examples: int | None = None


@dataclass(frozen=True)
class TfdsSource:
    """A prepared TFDS dataset in array_record format."""

    name: str
    """Builder name with optional config, e.g. `"wordnet"` or `"parallel_pairs/en-id"`."""
    split: str = "train"
    data_dir: str | None = None
    """Where datasets are prepared (None: `~/.cache/lco_jax/tfds`)."""
    weight: float = 1.0
    max_examples: int | None = None


Source = JsonlSource | TfdsSource


@dataclass(frozen=True)
class MediaConfig:
    """How images, clips and sounds are read: larger ones are scaled down, longer ones thinned out.

    Source: LCO-Emb model cards (pixels of an image); qwen-vl-utils (clips).
    """

    image_min_pixels: int = 56 * 56
    image_max_pixels: int = 1280 * 28 * 28
    """1,280 tokens; document tasks gain from more."""
    video_fps: float = 2.0
    """Frames that are read of a second."""
    video_max_frames: int = 64
    video_min_pixels: int = 128 * 28 * 28
    """Of each frame."""
    video_max_pixels: int = 768 * 28 * 28
    video_max_total_pixels: int = 115_200 * 28 * 28
    """Of all pairs of frames of a clip."""
    after_video: Literal["last", "extent"] = "last"
    """Where text goes on after a clip: behind its last position, as the models were trained, or
    behind its height and width, as transformers 5 does for Qwen2.5-VL."""
    audio_max_seconds: float = 300.0
    """Longer sounds are cut."""
    audio_in_video: bool = False
    """Whether the sound track of a film is read with it (Omni; off in the paper)."""
    on_error: Literal["raise", "skip"] = "raise"
    """Whether a damaged file stops a training run, or its example is replaced and counted."""


@dataclass(frozen=True)
class DataConfig:
    """What the model reads and how an item becomes a prompt."""

    sources: tuple[Source, ...]
    batch_size: int = 1056
    """Triplets of one optimizer step, over all devices."""
    num_negatives: int = 1
    """Hard negatives per anchor; examples with fewer leave the slot empty."""
    homogeneous: bool = False
    """Each batch comes from one source (chosen by weight) instead of a mix."""
    max_text_tokens: int | None = None
    """Text is cut to this many tokens before the prompt is appended (None: 650 with profile `lco`,
    300 with `mteb`)."""
    profile: Literal["lco", "mteb"] = "lco"
    """Prompt recipe, stored with every run and export."""
    media: MediaConfig = field(default_factory=MediaConfig)

    def __post_init__(self):
        _require(bool(self.sources), "data.sources is empty; name at least one source")
        _require(self.batch_size > 0, f"batch_size={self.batch_size} must be positive")
        _require(self.num_negatives >= 0, f"num_negatives={self.num_negatives} is negative")
        for source in self.sources:
            _require(source.weight > 0, f"weight={source.weight} of {source} must be positive")


@dataclass(frozen=True)
class Evaluation:
    """Held-out pairs (anchor → positive) on which retrieval is measured while training."""

    source: Source
    every_steps: int | None = None
    """None: only before the first and after the last step."""
    num_pairs: int | None = 200
    metric: Literal["recall@1", "recall@10", "mrr"] = "mrr"
    """Decides which checkpoint is best."""


# ------------------------------------------------------------------------------- optimizer


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, decay and clipping of the true global gradient."""

    peak_lr: float = 4e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = 100
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    """Global norm. The official trainer divides the gradient by the number of GPUs before it
    clips at 1.0, so its threshold on the true gradient is the number of GPUs (32)."""


# ------------------------------------------------------------------------------- execution


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the three mesh axes; -1 takes all devices that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        sizes = dataclasses.astuple(self)
        _require(all(size == -1 or size > 0 for size in sizes), f"mesh sizes {sizes} are invalid")
        _require(sizes.count(-1) <= 1, f"mesh sizes {sizes}: only one may be -1")

    def resolve(self, num_devices: int) -> tuple[int, int, int]:
        """The three sizes for `num_devices` devices.

        Raises:
            ValueError: the sizes do not multiply to the number of devices.
        """
        sizes = dataclasses.astuple(self)
        known = math.prod(size for size in sizes if size != -1)
        resolved = tuple(num_devices // known if size == -1 else size for size in sizes)
        _require(
            math.prod(resolved) == num_devices,
            f"mesh data={self.data} fsdp={self.fsdp} tensor={self.tensor} needs "
            f"{math.prod(resolved) or known} devices, found {num_devices}; "
            "set one axis to -1 or change a size",
        )
        return resolved


@dataclass(frozen=True)
class Memory:
    """Trades memory for time; never changes a result."""

    encode_chunks: int = 1
    """Encode the batch in this many pieces (gradient cache)."""
    logit_chunks: int = 1
    """Gather and compare the candidates in this many blocks."""
    candidates: Literal["auto", "gathered", "ring"] = "auto"
    """How all candidates meet all anchors: copied to every device, or sent round the devices
    (auto: the ring where a copy would take half a GiB)."""
    remat: Literal["none", "full", "dots"] = "none"
    """What the decoder recomputes in the backward pass."""
    row_tokens: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
    """Allowed lengths of a packed row, ascending. A batch takes the first that holds its longest
    item and gives short items company."""
    frame_rows: tuple[int, ...] = (256, 1024, 2048, 5120, 16384)
    """Allowed lengths of a row of patches, ascending, in multiples of 128: a batch takes the first
    that holds its largest image or frame. Full attention of the vision tower runs within a row."""

    def __post_init__(self):
        _require(self.encode_chunks > 0, f"encode_chunks={self.encode_chunks} must be positive")
        _require(self.logit_chunks > 0, f"logit_chunks={self.logit_chunks} must be positive")
        for name in ("row_tokens", "frame_rows"):
            sizes = getattr(self, name)
            ascending = tuple(sorted(set(sizes))) == sizes
            _require(ascending and bool(sizes), f"{name}={sizes} must ascend")


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep."""

    every_steps: int = 200
    keep_last: int = 2
    keep_best: int = 1
    """Of the checkpoints that were evaluated."""


@dataclass(frozen=True)
class LoggingConfig:
    """What a run tells while it goes."""

    every_steps: int = 1
    progress: bool = True
    tensorboard: bool = True
    report: bool = True
    """Write `report/index.html` at the end."""
    profile: tuple[int, int] | None = None
    """First and last step to trace for xprof, into `profile/` of the run folder."""

    def __post_init__(self):
        first, last = self.profile or (1, 1)
        _require(0 < first <= last, f"profile={self.profile} must be a first and a last step")


@dataclass(frozen=True)
class TrainConfig:
    """One contrastive stage: model, objective, data, optimizer, and how to run it."""

    # science
    model: ModelRef
    data: DataConfig
    objective: Contrastive = field(default_factory=Contrastive)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    num_steps: int | None = None
    """None: `num_epochs` passes over the data."""
    num_epochs: int = 2
    seed: int = 42
    # execution
    evaluation: Evaluation | None = None
    mesh: MeshConfig = field(default_factory=MeshConfig)
    memory: Memory = field(default_factory=Memory)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self):
        chunks = self.memory.encode_chunks
        _require(
            self.data.batch_size % chunks == 0,
            f"encode_chunks={chunks} does not divide batch_size={self.data.batch_size}",
        )
        _require(self.num_steps is None or self.num_steps > 0, f"num_steps={self.num_steps}")


SCIENCE = ("model", "data", "objective", "optimizer", "num_steps", "num_epochs", "seed")
