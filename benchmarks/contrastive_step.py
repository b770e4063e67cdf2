"""Our contrastive step on triplets of texts, and how it takes turns with those of others."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.report import (
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

TRIPLETS = Path(__file__).parents[1] / "data/quickstart/wordnet_train.jsonl"
_OURS = "lco_jax"
_LOSS_TOLERANCE = 1e-4

Triplet = tuple[str, str, str]


def lora_run(
    model: Path, lora: Lora, batch_size: int, steps: int, num_layers: int | None = None
) -> TrainConfig:
    """The settings of our run on triplets of WordNet; the other sides take theirs from it."""
    return TrainConfig(
        model=ModelRef(str(model), trainable=lora, dtype="float32", num_layers=num_layers),
        data=DataConfig(sources=(JsonlSource(str(TRIPLETS)),), batch_size=batch_size),
        optimizer=OptimizerConfig(schedule="constant", warmup_steps=0),
        num_steps=steps,
    )


def compare_steps(
    benchmark: str,
    config: TrainConfig,
    sides: Mapping[str, tuple[Any, ...]],
    threads: int,
    json: Path | None,
    others_compile: bool = False,
) -> None:
    """Time optimizer steps, ours and others in turn, print them, and compare the first losses.

    Args:
        sides: by name, a function that makes the side, and its arguments.
        others_compile: they run each batch once before it is timed, as ours does.

    Raises:
        ValueError: the first losses differ; the figures are printed and written before.
    """
    num_layers, batch_size = config.model.num_layers, config.data.batch_size
    batches = in_process(_read_batches, config)
    num_weights = decoder_weights(Path(config.model.path), num_layers)
    losses, own, rows = {}, [], []
    with Worker(ContrastiveStep, config, threads=threads) as ours:
        # The first runs are not timed: they compile, and start from the same weights.
        compiling = [ours.measure(batch) for batch in batches]
        losses[_OURS] = compiling[0].work.loss
        for side, maker in sides.items():  # one at a time, since they keep the memory of a step
            with Worker(*maker, threads=threads) as theirs:
                unpaired = [
                    theirs.measure(batch) for batch in batches[: None if others_compile else 1]
                ]
                losses[side] = unpaired[0].work.loss
                pairs = [(ours.measure(batch), theirs.measure(batch)) for batch in batches]
            beside, runs = map(list, zip(*pairs, strict=True))
            own += beside
            rows.append(make_row(side, runs, beside, 4 * num_weights))
    rows.insert(0, make_row(_OURS, own, own, 4 * num_weights))

    depth = "" if num_layers is None else f"{num_layers} layers, "
    show(
        f"step of {batch_size} triplets, {depth}{num_weights / 1e6:.0f} M decoder weights, float32",
        rows,
    )
    Console().print("first loss: " + ", ".join(f"{side} {x:.6f}" for side, x in losses.items()))
    if json:
        facts = {"num_layers": num_layers, "batch_size": batch_size, "first_losses": losses}
        append_json(json, benchmark, rows, facts)
    if not max(losses.values()) - min(losses.values()) <= _LOSS_TOLERANCE:
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
