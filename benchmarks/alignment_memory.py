"""Peak memory and time of the kernel alignment of many items over many layers.

    python -m benchmarks.alignment_memory --items 20000 --layers 30 --width 576

Both sides are random views of the same topics, written to disk layer by layer as the analysis does.
"""

import json
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.results import append_line
from lco_jax.analysis.states import LayerStates, LayerWriter
from lco_jax.metrics.kernel_alignment import align_layers
from lco_jax.metrics.names import METRICS


@dataclass(frozen=True)
class Arguments:
    """How much to compare, and where to note it."""

    items: int = 20_000
    layers: int = 30
    width: int = 576
    metrics: tuple[str, ...] = METRICS
    each_with_each: bool = False
    json: Path | None = None
    """Append the figures as one line."""


def main() -> None:
    """Write random states, align them, print the peak."""
    arguments = tyro.cli(Arguments)
    with tempfile.TemporaryDirectory() as folder:
        sides = [_write(Path(folder) / name, arguments, seed) for seed, name in enumerate("xy")]
        before = _peak_gib()
        start = time.perf_counter()
        found = align_layers(*sides, arguments.metrics, each_with_each=arguments.each_with_each)
        seconds = time.perf_counter() - start
    figures = {
        **{name: value for name, value in asdict(arguments).items() if name != "json"},
        "states_gib": 2 * arguments.items * arguments.layers * arguments.width * 4 / 2**30,
        "peak_gib_before": round(before, 3),
        "peak_gib": round(_peak_gib(), 3),
        "seconds": round(seconds, 1),
        "means": {name: float(np.nanmean(values)) for name, values in found.values.items()},
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        append_line(arguments.json, "alignment_memory", figures)


def _write(folder: Path, arguments: Arguments, seed: int) -> LayerStates:
    topics = np.random.default_rng(9).normal(size=(arguments.items, 32)).astype(np.float32)
    rng = np.random.default_rng(seed)
    piece = 1024
    views = rng.normal(size=(arguments.layers, 32, arguments.width)).astype(np.float32)
    with LayerWriter(folder, arguments.items) as writer:
        for start in range(0, arguments.items, piece):
            rows = topics[start : start + piece]
            states = np.stack([rows @ view for view in views], axis=1)
            states += 4 * rng.normal(size=states.shape).astype(np.float32)
            writer.append(states)
    return LayerStates(folder)


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
