"""What the comparisons share: a process per side, the speed of a matrix product, tables, JSON."""

import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.results import append_line

SMOLLM2 = Path("~/.cache/lco_jax/smollm2-135m").expanduser()
"""Where the quickstart has fetched its decoder to."""
_GEMM_SHAPE = (1024, 4096, 1024)
_GEMM_S = 0.5
_SPAWN = multiprocessing.get_context("spawn")
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Read when a process starts. Without them, both sides spend a tenth of a step on page faults."""


@dataclass(frozen=True)
class Work:
    """What a side has done in a measurement."""

    real_tokens: int
    """Of the whole prompts, whether or not each was computed for itself."""
    computed_tokens: int
    """Slots that went through the decoder, padding included."""
    loss: float = float("nan")
    vectors: np.ndarray | None = None


@dataclass(frozen=True)
class Measurement:
    """One measurement of one side; a busy machine shows in the speed of the matrix product."""

    seconds: float
    cpu_seconds: float
    gemm_gflops: float
    """Mean of right before and right after."""
    peak_bytes: int
    """Largest resident memory of the process since it started."""
    work: Work

    def gemm_share(self, flops_per_token: float) -> float:
        """Arithmetic for all computed tokens, over what matrix products do in the same time."""
        return flops_per_token * self.work.computed_tokens / self.seconds / self.gemm_gflops / 1e9


class Side(Protocol):
    """One of the programs that are compared, made and run in a process of its own."""

    def run(self, task: Any) -> Work:
        """Do a task; all results are on the host when it returns."""

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product of the precision that the side computes in."""


class Worker(AbstractContextManager):
    """A side in a process whose memory nothing else has touched.

    Args:
        make: module-level class or function that gives the side.
        threads: cores that the process may use.
    """

    def __init__(self, make: Callable[..., Side], *arguments: Any, threads: int):
        os.environ.update(_HUGE_PAGES)
        self._pool = ProcessPoolExecutor(1, _SPAWN, initializer=_pin, initargs=(threads,))
        self._side = (make, arguments)

    def measure(self, task: Any) -> Measurement:
        """Run `task` there; the first call also makes the side, which is not timed."""
        return self._pool.submit(_measure, *self._side, task).result()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in a process of its own."""
    with ProcessPoolExecutor(1, _SPAWN) as pool:
        return pool.submit(function, *arguments).result()


@functools.cache
def _made(make: Callable[..., Side], arguments: tuple[Any, ...]) -> Side:
    return make(*arguments)


def _pin(threads: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:threads])
    os.environ["OMP_NUM_THREADS"] = str(min(threads, len(cores)))


def _measure(make: Callable[..., Side], arguments: tuple[Any, ...], task: Any) -> Measurement:
    side = _made(make, arguments)
    multiply = side.multiply(_GEMM_SHAPE)
    before = _gemm_gflops(multiply)
    cpu_start, start = time.process_time(), time.perf_counter()
    work = side.run(task)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    gemm_gflops = (before + _gemm_gflops(multiply)) / 2
    return Measurement(seconds, cpu_seconds, gemm_gflops, _peak_bytes(), work)


def jax_product(shape: tuple[int, int, int], dtype: str) -> Callable[[], None]:
    """A matrix product, summed in float32: the fastest that JAX has on a CPU."""
    import jax
    import jax.numpy as jnp

    rows, inner, columns = shape
    x, y = jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
    dot = jax.jit(lambda x, y: jnp.dot(x, y, preferred_element_type=jnp.float32))
    return lambda: dot(x, y).block_until_ready()


def decoder_weights(folder: Path, num_layers: int | None = None) -> int:
    """Weights of the matrices that every token is multiplied with: no embeddings, no head."""
    from lco_jax.models.config import read_config

    text = read_config(folder).first_layers(num_layers).text
    attention = 2 * (text.num_heads + text.num_kv_heads) * text.head_dim
    return text.num_layers * text.hidden_size * (attention + 3 * text.intermediate_size)


def _gemm_gflops(multiply: Callable[[], None]) -> float:
    multiply()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < _GEMM_S:
        multiply()
        count += 1
    return 2 * np.prod(_GEMM_SHAPE) * count / (time.perf_counter() - start) / 1e9


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


# ------------------------------------------------------------------------------------ results

_COLUMNS = {
    "seconds": ("s", "{:.2f}"),
    "cpu_seconds": ("CPU s", "{:.2f}"),
    "ratio": ("x lco_jax", "{:.2f}"),
    "tokens_per_s": ("tokens/s", "{:,.0f}"),
    "computed": ("computed", "{:.0%}"),
    "gemm_share": ("of GEMM", "{:.0%}"),
    "gemm_gflops": ("GEMM GFLOP/s", "{:.0f}"),
    "peak_gb": ("peak GB", "{:.2f}"),
}
_OF_TOKENS = ("tokens_per_s", "computed", "gemm_share")


@dataclass(frozen=True)
class Row:
    """The median figures of one side."""

    side: str
    seconds: float
    cpu_seconds: float
    ratio: float
    """Its time over that of lco_jax, in the same round."""
    tokens_per_s: float
    """Of whole prompts, without padding."""
    computed: float
    """Computed slots over the tokens of whole prompts."""
    gemm_share: float
    """The arithmetic of the computed slots, over what matrix products do in the same time."""
    gemm_gflops: float
    """Of a large matrix product, before and after: less than usual on a busy machine."""
    peak_gb: float


def make_row(
    side: str, runs: list[Measurement], own: list[Measurement], flops_per_token: float
) -> Row:
    """The row of a side.

    Args:
        own: what lco_jax did beside each of `runs`.
        flops_per_token: of a computed slot.
    """
    return Row(
        side=side,
        seconds=_median(run.seconds for run in runs),
        cpu_seconds=_median(run.cpu_seconds for run in runs),
        ratio=_median(run.seconds / beside.seconds for run, beside in zip(runs, own, strict=True)),
        tokens_per_s=_median(run.work.real_tokens / run.seconds for run in runs),
        computed=_median(run.work.computed_tokens / run.work.real_tokens for run in runs),
        gemm_share=_median(run.gemm_share(flops_per_token) for run in runs),
        gemm_gflops=_median(run.gemm_gflops for run in runs),
        peak_gb=max(run.peak_bytes for run in runs) / 1e9,
    )


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def show(title: str, rows: list[Row], *, counts_tokens: bool = True) -> None:
    """Print the comparison, with what is said of tokens if they were counted."""
    shown = [field for field in _COLUMNS if counts_tokens or field not in _OF_TOKENS]
    table = Table("side", title=title)
    for field in shown:
        table.add_column(_COLUMNS[field][0], justify="right", no_wrap=True)
    for row in rows:
        cells = (_COLUMNS[field][1].format(getattr(row, field)) for field in shown)
        table.add_row(row.side, *cells)
    Console(width=max(110, Console().width)).print(table)


def append_json(file: Path, benchmark: str, rows: list[Row], facts: dict[str, Any]) -> None:
    """Add one line with the figures to `file`."""
    append_line(file, benchmark, {**facts, "sides": [asdict(row) for row in rows]})
