"""Every setting of a run, as frozen dataclasses.

A `TrainConfig` has *science* fields, which decide the numbers of a run, and *execution* fields,
which decide only where and how fast they are computed. A resume accepts any change of execution
and refuses a change of science (`config/io.py`).
"""

from lco_jax.config.data import (
    Columns,
    ControlTokensRead,
    DataConfig,
    Evaluation,
    JsonlSource,
    MediaConfig,
    MediaLimits,
    Misreading,
    ProfileName,
    Source,
    TableSource,
    TfdsSource,
)
from lco_jax.config.execution import CheckpointConfig, LoggingConfig, Memory, MeshConfig
from lco_jax.config.model import LORA_TARGETS, Full, Lora, ModelRef, Tower, Towers, Trainable
from lco_jax.config.objective import Alignment, Contrastive, Generative, Objective
from lco_jax.config.run import (
    PREVIOUS_STAGE,
    RUN_FOLDER,
    SCIENCE,
    OptimizerConfig,
    Samples,
    Soup,
    Stage,
    Stages,
    TrainConfig,
)

__all__ = [
    "LORA_TARGETS",
    "PREVIOUS_STAGE",
    "RUN_FOLDER",
    "SCIENCE",
    "Alignment",
    "CheckpointConfig",
    "Columns",
    "Contrastive",
    "ControlTokensRead",
    "DataConfig",
    "Evaluation",
    "Full",
    "Generative",
    "JsonlSource",
    "LoggingConfig",
    "Lora",
    "MediaConfig",
    "MediaLimits",
    "Memory",
    "MeshConfig",
    "Misreading",
    "ModelRef",
    "Objective",
    "OptimizerConfig",
    "ProfileName",
    "Samples",
    "Soup",
    "Source",
    "Stage",
    "Stages",
    "TableSource",
    "TfdsSource",
    "Tower",
    "Towers",
    "TrainConfig",
    "Trainable",
]
