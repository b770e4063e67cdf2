"""A contrastive step with low-rank factors, tokenisation included: lco_jax and torch with peft.

python -m benchmarks.training_step --json results.jsonl
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console

from benchmarks.report import (
    Side,
    Work,
    Worker,
    append_json,
    decoder_weights,
    in_process,
    jax_product,
    make_row,
    show,
)
from lco_jax.config import DataConfig, JsonlSource, Lora, ModelRef, OptimizerConfig, TrainConfig

_TRIPLETS = Path(__file__).parents[1] / "data/quickstart/wordnet_train.jsonl"
_MODEL = Path("~/.cache/lco_jax/smollm2-135m").expanduser()
_OURS = "lco_jax"
_LOSS_TOLERANCE = 1e-4

Triplet = tuple[str, str, str]
_SideName = Literal["official", "official, no checkpointing", "grouped", "shared preamble"]


@dataclass(frozen=True)
class Arguments:
    """Time optimizer steps, ours and torch's in turn, on the same triplets in the same order."""

    model: Path = _MODEL
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
    config = TrainConfig(
        model=ModelRef(
            str(arguments.model),
            trainable=Lora(rank=arguments.rank, alpha=32.0, dropout=arguments.dropout),
            dtype="float32",
            num_layers=arguments.num_layers,
        ),
        data=DataConfig(sources=(JsonlSource(str(_TRIPLETS)),), batch_size=arguments.batch_size),
        optimizer=OptimizerConfig(schedule="constant", warmup_steps=0),
        num_steps=arguments.steps,
    )
    batches = in_process(_read_batches, config)
    num_weights = decoder_weights(arguments.model, arguments.num_layers)
    losses, own, rows = {}, [], []
    with Worker(ContrastiveStep, config, threads=arguments.threads) as ours:
        # The first runs are not timed: they compile, and start from the same weights.
        compiling = [ours.measure(batch) for batch in batches]
        losses[_OURS] = compiling[0].work.loss
        for side in arguments.sides:  # one at a time, since torch keeps the memory of a step
            maker = (_torch_step, config, side, arguments.group_size)
            with Worker(*maker, threads=arguments.threads) as theirs:
                losses[side] = theirs.measure(batches[0]).work.loss
                pairs = [(ours.measure(batch), theirs.measure(batch)) for batch in batches]
            beside, runs = map(list, zip(*pairs, strict=True))
            own += beside
            rows.append(make_row(side, runs, beside, 4 * num_weights))
    rows.insert(0, make_row(_OURS, own, own, 4 * num_weights))

    show(
        f"step of {arguments.batch_size} triplets, {arguments.num_layers} layers, "
        f"{num_weights / 1e6:.0f} M decoder weights, float32",
        rows,
    )
    Console().print("first loss: " + ", ".join(f"{side} {x:.6f}" for side, x in losses.items()))
    if arguments.json:
        facts = {
            "num_layers": arguments.num_layers,
            "batch_size": arguments.batch_size,
            "first_losses": losses,
        }
        append_json(arguments.json, "training_step", rows, facts)
    if max(losses.values()) - min(losses.values()) > _LOSS_TOLERANCE:
        raise ValueError(f"the sides disagree on the first loss by more than {_LOSS_TOLERANCE}")


class ContrastiveStep:
    """Our step, and what the loader does for it, one after the other."""

    def __init__(self, config: TrainConfig):
        import jax
        import jax.numpy as jnp

        from lco_jax.data.encode.prompt import Prompter
        from lco_jax.models.config import read_config
        from lco_jax.models.describe import describe_model
        from lco_jax.runtime.mesh import make_mesh
        from lco_jax.train.optimizer import make_optimizer, make_schedule
        from lco_jax.train.setup import initial_state
        from lco_jax.train.update import make_step

        self._config, self._mesh = config, make_mesh(config.mesh)
        folder = Path(config.model.path)
        with jax.set_mesh(self._mesh):
            self._prompter = Prompter(folder)
            self._preamble = jnp.asarray(self._prompter.head)
            model = describe_model(config.model, read_config(folder), with_head=False)
            schedule = make_schedule(config.optimizer, config.num_steps)
            optimizer = make_optimizer(config.optimizer, schedule)
            self._state = initial_state(config, model, folder, optimizer)
            self._step = make_step(config, model.graph, optimizer, schedule)

    def run(self, task: list[Triplet]) -> Work:
        """One optimizer step on a batch of triplets."""
        import jax

        from lco_jax.data.pack.specs import BATCH_SPECS
        from lco_jax.runtime.processes import to_global

        batch = self._load(task)
        with jax.set_mesh(self._mesh):
            inputs = to_global(self._mesh, batch, BATCH_SPECS)
            self._state, metrics = self._step(self._state, inputs, self._preamble)
            jax.block_until_ready(self._state)
        num_shared = len(self._preamble)
        real_tokens = int((batch.segments > 0).sum()) + num_shared * int(batch.valid.sum())
        return Work(real_tokens, batch.tokens.size + num_shared, loss=float(metrics["loss"]))

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product in float32."""
        return jax_product(shape, "float32")

    def _load(self, task: list[Triplet]):
        from lco_jax.data.pack.batch import choose_shape, item_lengths, measure, pack
        from lco_jax.data.records import Item

        encoded = self._prompter.encode([Item(text=text) for triplet in task for text in triplet])
        lengths = item_lengths(encoded).reshape(1, len(task), -1)
        row_tokens = self._config.memory.row_tokens
        shape = choose_shape(measure(lengths, 1, row_tokens), row_tokens)
        return pack(encoded, np.arange(len(task))[None], 1, shape, len(self._prompter.head))


def _read_batches(config: TrainConfig) -> list[list[Triplet]]:
    from lco_jax.data.sources.mixture import ExampleStream

    stream, size = ExampleStream(config.data, config.seed), config.data.batch_size
    triplets = [
        (example.anchor.text, example.positive.text, example.negatives[0].text)
        for example in (stream[index] for index in range(config.num_steps * size))
    ]
    return [triplets[start : start + size] for start in range(0, len(triplets), size)]


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
