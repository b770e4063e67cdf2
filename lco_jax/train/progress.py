"""The progress bar, and the way of a step's metrics from the device to files and console."""

import time
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lco_jax.train.finite import check_finite


class StepProgress:
    """A bar with the loss, the speed and the share of real tokens."""

    def __init__(self, num_steps: int, start_step: int, *, enabled: bool):
        columns = ("[progress.description]{task.description}", "{task.fields[text]}")
        self._progress = Progress(
            TextColumn(columns[0]),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(columns[1]),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
        )
        doing = "compiling" if start_step < num_steps else "nothing left to do"
        self._task = self._progress.add_task(
            "training", total=num_steps, completed=start_step, text=doing
        )

    def __enter__(self) -> "StepProgress":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def update(self, step: int, scalars: dict[str, float]) -> None:
        """Show the metrics of `step`."""
        text = (
            f"loss {scalars['loss']:.3f} · {scalars['tokens_per_second']:,.0f} tokens/s · "
            f"{scalars['real_tokens']:.0%} real"
        )
        self._progress.update(self._task, completed=step, text=text)


class Reporter:
    """Brings metrics to the host one step late, so that the device never waits for the console."""

    def __init__(self, config, num_steps, start_step, writer, step_fn, spending):
        self.every, self.num_steps, self.writer = config.logging.every_steps, num_steps, writer
        self.step_fn, self.spending = step_fn, spending
        self.last: dict[str, float] = {}
        self._pending: tuple[int, dict, Any] | None = None
        self._unreadable = 0
        self._clock, self._clock_step, self._tokens = time.perf_counter(), start_step, 0
        self._spent_before = spending.total_s

    def after(self, step, metrics, stats, bar) -> None:
        self.flush(bar)
        self._pending = (step, metrics, stats)

    def flush(self, bar) -> None:
        if self._pending is None:
            return
        step, metrics, stats = self._pending
        self._pending = None
        scalars = {name: float(value) for name, value in jax.device_get(metrics).items()}
        scalars = check_finite(step, scalars)
        self._tokens += stats.real_tokens
        self._unreadable += stats.unreadable
        self.spending.add("input", stats.waited_s)
        now = time.perf_counter()
        # Saving and evaluating are not part of a step; waiting for input is.
        pauses = self.spending.total_s - self._spent_before
        seconds, steps = now - self._clock - pauses, step - self._clock_step
        scalars |= {
            "step_seconds": seconds / steps,
            "tokens_per_second": self._tokens / seconds,
            "real_tokens": stats.real_tokens / stats.slots,
            "input_wait_seconds": stats.waited_s,
            "programs": self.step_fn._cache_size(),
            **self.spending.scalars(),
        }
        if stats.real_patches is not None:
            scalars["real_patches"] = stats.real_patches
        if self._unreadable:
            scalars["unreadable"] = self._unreadable
        self.last = scalars
        if step % self.every == 0 or step == self.num_steps:
            if self.writer:
                self.writer.write(step, "train", scalars)
            bar.update(step, scalars)
            self._clock, self._clock_step, self._tokens = now, step, 0
            self._spent_before = self.spending.total_s
