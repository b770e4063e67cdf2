"""What checksums cost a save.

    python -m benchmarks.checkpoints --megabytes 400

A state of weights and both moments is saved with checksums and without, in turns, and the checksums
are computed alone: how long a disk takes varies by more than they do.
"""

import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro

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


def main() -> None:
    """Save in turns, print medians."""
    arguments = tyro.cli(Arguments)
    mesh = jax.make_mesh((1, 1, 1), MESH_AXES, devices=jax.devices()[:1])
    times: dict[str, list[float]] = {name: [] for name in ("with", "without")}
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
        state = _state(arguments.megabytes)
        checkpoints = Checkpoints(folder, CheckpointConfig(keep_last=1))
        for step in range(1, arguments.pairs + 2):
            pair = {"with": _save(checkpoints, state, 2 * step)}
            with mock.patch.object(checkpoint, "checksums_of", lambda _: Checksums({}, True)):
                pair["without"] = _save(checkpoints, state, 2 * step + 1)
            if step > 1:  # the first compiles
                for name, seconds in pair.items():
                    times[name].append(seconds)
        times["alone"] = [_checksums(state) for _ in range(arguments.pairs + 1)][1:]
        checkpoints.close()
    ratios = [a / b for a, b in zip(times["with"], times["without"], strict=True)]
    save, alone = (statistics.median(times[name]) for name in ("without", "alone"))
    figures = {
        **{name: value for name, value in asdict(arguments).items() if name != "json"},
        "save_s": round(statistics.median(times["with"]), 3),
        "save_without_checksums_s": round(save, 3),
        "ratio": round(statistics.median(ratios), 3),
        "checksums_s": round(alone, 3),
        "share": round(alone / save, 4),
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        with arguments.json.open("a") as file:
            file.write(json.dumps(figures) + "\n")


def _state(megabytes: int) -> TrainState:
    rng = np.random.default_rng(0)
    rows = megabytes * 10**6 // (3 * 4 * 8 * 1024)

    def draw() -> dict[str, jax.Array]:
        return {
            f"layer_{i}": jnp.asarray(rng.normal(size=(rows, 1024)).astype(np.float32))
            for i in range(8)
        }

    return TrainState(jnp.int32(0), draw(), {}, {"mu": draw(), "nu": draw()})


def _save(checkpoints: Checkpoints, state: TrainState, step: int) -> float:
    """Seconds until a save is complete."""
    start = time.perf_counter()
    state.step = jnp.int32(step)
    checkpoints.save(state, data={"next_step": step})
    checkpoints.wait()
    return time.perf_counter() - start


def _checksums(state: TrainState) -> float:
    start = time.perf_counter()
    checkpoint.checksums_of({"trainable": state.trainable, "opt_state": state.opt_state})
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
