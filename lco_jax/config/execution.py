"""Where and how fast a run is computed: none of it changes a result but by rounding."""

import math
from dataclasses import dataclass
from typing import Literal

from lco_jax.config.checks import require


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the three mesh axes; -1 takes all devices that are left. What `tensor` adds up."""

    data: int = -1
    """Shards of the batch alone."""
    fsdp: int = 1
    """Shards of batch and weights."""
    tensor: int = 1
    """Shards of every layer."""
    tensor_sums: Literal["float32", "bfloat16"] = "float32"
    """In what training adds up over `tensor` the products of a model in bfloat16. `bfloat16`: each
    device rounds its part first, which halves what is sent. `float32`: none has to, though a
    compiler may choose to (that of TPUs does in small programs)."""

    def __post_init__(self):
        sizes = self._sizes
        require(all(size == -1 or size > 0 for size in sizes), f"mesh sizes {sizes} are invalid")
        require(sizes.count(-1) <= 1, f"mesh sizes {sizes}: only one may be -1")

    def resolve(self, num_devices: int) -> tuple[int, int, int]:
        """The three sizes for `num_devices` devices.

        Raises:
            ValueError: the sizes do not multiply to the number of devices.
        """
        sizes = self._sizes
        known = math.prod(size for size in sizes if size != -1)
        resolved = tuple(num_devices // known if size == -1 else size for size in sizes)
        require(
            math.prod(resolved) == num_devices,
            f"mesh data={self.data} fsdp={self.fsdp} tensor={self.tensor} needs "
            f"{math.prod(resolved) or known} devices, found {num_devices}; "
            "set one axis to -1 or change a size",
        )
        return resolved

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.data, self.fsdp, self.tensor


FRAME_ROW_STEP = 128
"""Patches of which the length of a row of patches is a multiple."""


@dataclass(frozen=True)
class Memory:
    """Trades memory for time; never changes a result."""

    encode_chunks: int = 1
    """Encode the batch in this many pieces (contrastive: gradient cache; generative: gradients of
    the pieces are added up)."""
    logit_chunks: int = 1
    """Gather and compare the candidates in this many blocks."""
    candidates: Literal["auto", "gathered", "ring"] = "auto"
    """How anchors are compared with the candidates of all devices. `gathered`: every device holds
    all candidates. `ring`: blocks of candidates pass from device to device. `auto`: the ring where
    holding all would take more than half a GiB."""
    head_tokens: int = 512
    """Compute next-token logits of this many tokens of a device at a time."""
    remat: Literal["none", "full", "dots"] = "dots"
    """What the backward pass recomputes: nothing, all, or (`dots`) all but matrix products."""
    row_tokens: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
    """Allowed lengths of a packed row, ascending. A batch takes the one that costs least of those
    that hold its longest item; short items share rows."""
    frame_rows: tuple[int, ...] = (256, 1024, 2048, 5120, 10240, 16384)
    """Allowed lengths of a row of patches, ascending, in multiples of 128. A batch takes the one
    that costs least of those that hold its largest image or frame. Full attention of the vision
    tower runs within a row."""
    least_shape: tuple[int, int, int] = (0, 0, 0)
    """Rows, rows of patches and chunks of audio that a training batch has at least on each data
    shard (of media: if it has any), so that fewer programs are compiled."""
    feature_cache: str | None = None
    """Folder in which the features of media are kept, so that frozen towers see each file once."""

    def __post_init__(self):
        require(self.encode_chunks > 0, f"encode_chunks={self.encode_chunks} must be positive")
        require(self.logit_chunks > 0, f"logit_chunks={self.logit_chunks} must be positive")
        require(self.head_tokens > 0, f"head_tokens={self.head_tokens} must be positive")
        for name in ("row_tokens", "frame_rows"):
            sizes = getattr(self, name)
            ascending = tuple(sorted(set(sizes))) == sizes
            require(ascending and bool(sizes), f"{name}={sizes} must ascend")
            require(min(sizes) > 0, f"{name}={sizes} must be positive")
        least = self.least_shape
        require(min(least) >= 0, f"least_shape={least} must not be negative")
        require(
            not any(size % FRAME_ROW_STEP for size in self.frame_rows),
            f"frame_rows={self.frame_rows} must be multiples of {FRAME_ROW_STEP}",
        )


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep."""

    every_steps: int = 200
    """Steps between two checkpoints; SIGTERM and Ctrl-C save one, too."""
    keep_last: int = 2
    """Of the newest checkpoints."""
    keep_best: int = 1
    """Of the checkpoints that were evaluated."""

    def __post_init__(self):
        every = self.every_steps
        require(every > 0, f"checkpoint.every_steps={every} must be positive")


@dataclass(frozen=True)
class LoggingConfig:
    """What a run reports while it goes."""

    every_steps: int = 1
    """Steps between two lines of `metrics.jsonl`."""
    progress: bool = True
    """Show a progress bar on a terminal."""
    tensorboard: bool = True
    """Write event files to `tensorboard/` of the run folder."""
    report: bool = True
    """Write `report/index.html` at the end."""
    profile: tuple[int, int] | None = None
    """First and last step to trace for xprof, into `profile/` of the run folder."""

    def __post_init__(self):
        every = self.every_steps
        require(every > 0, f"logging.every_steps={every} must be positive")
        first, last = self.profile or (1, 1)
        require(0 < first <= last, f"profile={self.profile} must be a first and a last step")
