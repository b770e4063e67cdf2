"""A contrastive step with low-rank factors, tokenisation included: lco_jax and torch with peft.

python -m benchmarks.training_step --json results.jsonl
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.contrastive_step import compare_steps, lora_run
from benchmarks.report import SMOLLM2, Side
from lco_jax.config import Lora, TrainConfig

_SideName = Literal["official", "official, no checkpointing", "grouped", "shared preamble"]


@dataclass(frozen=True)
class Arguments:
    """Time optimizer steps, ours and torch's in turn, on the same triplets in the same order."""

    model: Path = SMOLLM2
    num_layers: int = 8
    batch_size: int = 64
    rank: int = 16
    dropout: float = 0.05
    steps: int = 5
    """Different batches; ours runs each once before it is timed."""
    group_size: int = 48
    """Items of one forward of the grouped torch steps."""
    sides: tuple[_SideName, ...] = ("official", "grouped", "shared preamble")
    """Torch steps to compare with (official without checkpointing: twice the memory)."""
    threads: int = 2
    json: Path | None = None
    """Append the figures to this file."""


def main(arguments: Arguments) -> None:
    """Run all sides, compare the losses of the first step, print."""
    config = lora_run(
        arguments.model,
        Lora(rank=arguments.rank, alpha=32.0, dropout=arguments.dropout),
        arguments.batch_size,
        arguments.steps,
        arguments.num_layers,
    )
    sides = {side: (_torch_step, config, side, arguments.group_size) for side in arguments.sides}
    compare_steps("training_step", config, sides, arguments.threads, arguments.json)


def _torch_step(config: TrainConfig, side: _SideName, group_size: int) -> Side:
    from benchmarks import torch_reference  # torch stays out of our process
    from lco_jax.data.encode.prompt import Prompter

    prompter = Prompter(config.model.path)
    settings = torch_reference.StepSettings(
        folder=Path(config.model.path),
        num_layers=config.model.num_layers,
        rank=config.model.trainable.rank,
        alpha=config.model.trainable.alpha,
        dropout=config.model.trainable.dropout,
        temperature=config.objective.temperature,
        learning_rate=config.optimizer.peak_lr,
        clip_norm=config.optimizer.clip_norm,
        prompt=prompter.prompt,
        preamble=tuple(prompter.head.tolist()),
    )
    makers = {
        "official": lambda: torch_reference.OfficialStep(settings, checkpointing=True),
        "official, no checkpointing": lambda: torch_reference.OfficialStep(
            settings, checkpointing=False
        ),
        "grouped": lambda: torch_reference.GroupedStep(settings, group_size),
        "shared preamble": lambda: torch_reference.SharedPreambleStep(settings, group_size),
    }
    return makers[side]()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
