"""What checksums cost a save.

    python -m benchmarks.checkpoints --megabytes 400

A state of weights and both moments is saved with checksums and without, in turns, and the checksums
are computed alone: how long a disk takes varies by more than they do. Seconds of CPU say the same
on a machine that has other work.
"""

import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.results import append_line
from lco_jax.config import CheckpointConfig
from lco_jax.runtime.axes import MESH_AXES
from lco_jax.train import checkpoint
from lco_jax.train.checkpoint import Checkpoints
from lco_jax.train.checksums import Checksums
from lco_jax.train.update import TrainState


@dataclass(frozen=True)
class Arguments:
    """How much to save, how often, and where to note it."""

    megabytes: int = 400
    """Of weights and moments together."""
    pairs: int = 7
    json: Path | None = None
    """Append the figures as one line."""


class Seconds(NamedTuple):
    """By the clock, and of the processors."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Seconds":
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> "Seconds":
        return Seconds(time.perf_counter() - self.wall, time.process_time() - self.cpu)


def main() -> None:
    """Save in turns, print medians."""
    arguments = tyro.cli(Arguments)
    mesh = jax.make_mesh((1, 1, 1), MESH_AXES, devices=jax.devices()[:1])
    times: dict[str, list[Seconds]] = {name: [] for name in ("with", "without", "alone")}
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
        state = _state(arguments.megabytes)
        checkpoints = Checkpoints(folder, CheckpointConfig(keep_last=1))
        for step in range(1, arguments.pairs + 2):
            found = {"with": _save(checkpoints, state, 2 * step)}
            with mock.patch.object(checkpoint, "checksums_of", lambda _: Checksums({}, True)):
                found["without"] = _save(checkpoints, state, 2 * step + 1)
            found["alone"] = _checksums(state)
            if step > 1:  # the first compiles
                for name, seconds in found.items():
                    times[name].append(seconds)
        checkpoints.close()
    medians = {
        name: Seconds(*map(statistics.median, zip(*x, strict=True))) for name, x in times.items()
    }
    save, alone = medians["without"], medians["alone"]
    figures = {
        **{name: value for name, value in asdict(arguments).items() if name != "json"},
        **{f"{name}_s": [round(x, 3) for x in seconds] for name, seconds in medians.items()},
        "share": [round(alone.wall / save.wall, 4), round(alone.cpu / save.cpu, 4)],
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        append_line(arguments.json, "checkpoints", figures)


def _state(megabytes: int) -> TrainState:
    rng = np.random.default_rng(0)
    rows = megabytes * 10**6 // (3 * 4 * 8 * 1024)

    def draw() -> dict[str, jax.Array]:
        return {
            f"layer_{i}": jnp.asarray(rng.normal(size=(rows, 1024)).astype(np.float32))
            for i in range(8)
        }

    return TrainState(jnp.int32(0), draw(), {}, {"mu": draw(), "nu": draw()})


def _save(checkpoints: Checkpoints, state: TrainState, step: int) -> Seconds:
    """Until a save is complete."""
    start = Seconds.now()
    state.step = jnp.int32(step)
    checkpoints.save(state, data={"next_step": step})
    checkpoints.wait()
    return start.since()


def _checksums(state: TrainState) -> Seconds:
    start = Seconds.now()
    checkpoint.checksums_of({"trainable": state.trainable, "opt_state": state.opt_state})
    return start.since()


if __name__ == "__main__":
    main()
