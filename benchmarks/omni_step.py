"""A contrastive step with low-rank factors on a random Qwen2.5-Omni: lco_jax and representax.

python -m benchmarks.omni_step --json results.jsonl
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.contrastive_step import compare_steps, lora_run
from benchmarks.peer_library import Rematerialization, require_representax
from benchmarks.report import Side, in_process
from lco_jax.config import Lora, TrainConfig


@dataclass(frozen=True)
class Arguments:
    """Time optimizer steps, ours and theirs in turn, on the same triplets of texts in the same
    order. There is no dropout, which representax does not have."""

    batch_size: int = 16
    rank: int = 16
    steps: int = 5
    """Different batches; both run each once before it is timed."""
    recomputes: tuple[Rematerialization, ...] = ("none",)
    """What representax computes again in the backward pass; a side each."""
    threads: int = 2
    json: Path | None = None
    """Append the figures to this file."""


def main(arguments: Arguments) -> None:
    """Write a checkpoint, run all sides, compare the losses of the first step, print."""
    require_representax()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_process(_write_checkpoint, folder)
        config = lora_run(
            folder,
            Lora(rank=arguments.rank, alpha=32.0, dropout=0.0),
            arguments.batch_size,
            arguments.steps,
        )
        sides = {
            f"representax, recomputes {policy}": (_representax, config, policy)
            for policy in arguments.recomputes
        }
        compare_steps(
            "omni_step", config, sides, arguments.threads, arguments.json, others_compile=True
        )


def _representax(config: TrainConfig, rematerialization: Rematerialization) -> Side:
    from benchmarks.representax_step import RetrievalStep  # no requirement of the others
    from lco_jax.data.encode.prompt import Prompter

    return RetrievalStep(config, Prompter(config.model.path).prompt, rematerialization)


def _write_checkpoint(folder: Path) -> None:
    from benchmarks.random_checkpoints import write_omni  # torch stays out of our process

    write_omni(folder)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
