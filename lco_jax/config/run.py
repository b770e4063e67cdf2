"""A run: one stage, or several one after another."""

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from lco_jax.config.checks import require
from lco_jax.config.data import WITHOUT_ANSWERS, DataConfig, Evaluation, Source
from lco_jax.config.execution import CheckpointConfig, LoggingConfig, Memory, MeshConfig
from lco_jax.config.model import ModelRef, Towers
from lco_jax.config.objective import Alignment, Contrastive, Objective


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, decay and clipping of the true global gradient."""

    peak_lr: float = 4e-4
    """Learning rate after the warm-up."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int | float = 100
    """In which the rate rises from 0: a number of steps, or (below 1) a share of all of them."""
    beta1: float = 0.9
    """Decay of the mean of gradients."""
    beta2: float = 0.999
    """Decay of the mean of squared gradients."""
    eps: float = 1e-8
    """Added to the root of the latter."""
    weight_decay: float = 0.0
    """Decoupled, of trained matrices."""
    clip_norm: float | None = 1.0
    """Global norm. The official trainer divides the gradient by the number of GPUs before it
    clips at 1.0, so its threshold on the true gradient is the number of GPUs (32)."""

    def __post_init__(self):
        require(self.peak_lr > 0, f"peak_lr={self.peak_lr} must be positive")
        require(
            self.clip_norm is None or self.clip_norm > 0,
            f"clip_norm={self.clip_norm} leaves nothing of a gradient; None clips nothing",
        )
        steps = self.warmup_steps
        require(
            steps >= 0 and (steps < 1 or steps == int(steps)),
            f"warmup_steps={steps} must be a number of steps, or a share of them in [0, 1)",
        )

    def warmup_of(self, num_steps: int) -> int:
        """The warm-up of a run of so many steps.

        Raises:
            ValueError: it is longer than the run.
        """
        share = self.warmup_steps < 1
        steps = round(self.warmup_steps * num_steps) if share else int(self.warmup_steps)
        require(
            steps <= num_steps,
            f"warmup_steps={steps} is longer than the run of {num_steps} steps; use at most "
            f"{num_steps}, a share of them such as 0.1, or more steps",
        )
        return steps


@dataclass(frozen=True)
class TrainConfig:
    """One stage: model, objective, data, optimizer, and how to run it."""

    model: ModelRef
    data: DataConfig
    objective: Objective = field(default_factory=Contrastive)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    num_steps: int | None = None
    """Optimizer steps (None: as many as `num_epochs` passes over the data take)."""
    num_epochs: int = 2
    """Passes over the data, unless `num_steps` is given."""
    seed: int = 42
    """Of the order of the data, the low-rank factors and dropout."""
    evaluation: Evaluation | None = None
    """Held-out pairs on which retrieval is measured (None: none)."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    memory: Memory = field(default_factory=Memory)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self):
        require(self.seed >= 0, f"seed={self.seed} must not be negative")
        chunks = self.memory.encode_chunks
        require(
            self.data.batch_size % chunks == 0,
            f"encode_chunks={chunks} does not divide batch_size={self.data.batch_size}",
        )
        require(
            chunks == 1 or not isinstance(self.objective, Alignment),
            f"encode_chunks={chunks}: an alignment runs its batch in one piece; set it to 1 and "
            "lower batch_size",
        )
        require(
            isinstance(self.objective, Contrastive) or self.data.profile not in WITHOUT_ANSWERS,
            f"profile={self.data.profile!r} writes no turns that can have answers; use `lco`",
        )
        require(
            self.num_steps is None or self.num_steps > 0,
            f"num_steps={self.num_steps} trains nothing; give a positive number, or leave it out "
            "and say num_epochs",
        )
        require(
            self.num_steps is not None or self.num_epochs > 0,
            f"num_epochs={self.num_epochs} trains nothing; give a positive number, or num_steps",
        )
        require(
            self.memory.feature_cache is None or not isinstance(self.model.trainable, Towers),
            "memory.feature_cache keeps what frozen towers compute, and these train; leave it out",
        )


SCIENCE = ("model", "data", "objective", "optimizer", "num_steps", "num_epochs", "seed")

PREVIOUS_STAGE = "<previous stage>"
"""As the path of a model: what the stage before has left."""
RUN_FOLDER = "<run folder>"
"""At the beginning of a model's path: it is relative to the folder of the run, so that stages can
be moved together and opened from anywhere."""


@dataclass(frozen=True)
class Stage:
    """A stage and the name of its run folder."""

    name: str
    config: TrainConfig

    def __post_init__(self):
        fits = re.fullmatch(r"[a-z][a-z0-9_]*", self.name)
        require(bool(fits), f"stage name {self.name!r} must be a lower-case word")


@dataclass(frozen=True)
class Samples:
    """What the report shows of the model that a stage leaves: responses to held-out prompts."""

    stage: str
    sources: tuple[Source, ...]
    """Of prompts with media, as a generative stage reads them; `max_examples` of each."""
    max_new_tokens: int = 24


@dataclass(frozen=True)
class Soup:
    """The mean of the merged weights of several runs from one model."""

    of: tuple[str, ...]
    """Stages by name; in a grid, arms."""

    def __post_init__(self):
        require(
            len(set(self.of)) == len(self.of) >= 2,
            f"a soup of {self.of} is no mean; name two runs or more, each once",
        )


SOUP_FOLDER = "soup"
"""Beside the folders of stages: the model that is their mean."""


@dataclass(frozen=True)
class Stages:
    """Stages that run one after another, in one process on one mesh."""

    stages: tuple[Stage, ...]
    samples: Samples | None = None
    soup: Soup | None = None
    """Of stages that start from the same model; their mean is left in the folder `soup`."""

    def __post_init__(self):
        names = [stage.name for stage in self.stages]
        require(bool(names), "stages is empty; name at least one stage")
        require(len(set(names)) == len(names), f"stages {names} must have different names")
        meshes = {stage.config.mesh for stage in self.stages}
        require(len(meshes) == 1, f"stages {names} share one mesh, found {len(meshes)} of them")
        first = self.stages[0]
        require(
            first.config.model.path != PREVIOUS_STAGE,
            f"stage {first.name!r} is the first; its model.path must name a model",
        )
        require(
            self.samples is None or self.samples.stage in names,
            f"samples are of stage {self.samples and self.samples.stage!r}; stages are {names}",
        )
        if self.soup is not None:
            self._check_soup(names)

    def _check_soup(self, names: list[str]) -> None:
        missing = sorted(set(self.soup.of) - set(names))
        require(not missing, f"the soup is of stages {self.soup.of}, and {missing} are not there")
        require(
            SOUP_FOLDER not in names,
            f"a stage is called {SOUP_FOLDER!r}, which is the folder of the soup; rename it",
        )
        refs = [stage.config.model for stage in self.stages if stage.name in self.soup.of]
        bases = {(ref.path, ref.revision, ref.num_layers) for ref in refs}
        require(
            len(bases) == 1 and refs[0].path != PREVIOUS_STAGE,
            f"the stages {self.soup.of} of the soup start from {sorted({r.path for r in refs})}; "
            "give all of them the same model.path, which is none of a stage",
        )

    def sized(self) -> tuple[Stage, ...]:
        """The stages with a model of known sizes in the place of what an earlier one leaves."""
        sized: list[Stage] = []
        for stage in self.stages:
            ref = stage.config.model
            if ref.path == PREVIOUS_STAGE:
                before = sized[-1].config.model
                layers = [n for n in (before.num_layers, ref.num_layers) if n is not None]
                ref = replace(
                    ref,
                    path=before.path,
                    revision=before.revision,
                    num_layers=min(layers, default=None),
                )
            sized.append(Stage(stage.name, replace(stage.config, model=ref)))
        return tuple(sized)
