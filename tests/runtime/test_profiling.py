"""Goodput by a clock that the test turns, and traces that hold the chosen steps alone."""

import jax
import jax.numpy as jnp
import pytest

from lco_jax.runtime import profiling
from lco_jax.runtime.profiling import Spending, trace_steps


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the start, as a list of one number."""
    now = [100.0]
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: now[0])
    return now


def test_goodput(clock):
    spending = Spending()
    clock[0] += 4  # weights
    with spending.on("evaluation"):
        clock[0] += 1
    clock[0] += 5  # compilation and the first step
    first = spending.scalars()
    assert first["startup_seconds"] == 9
    assert first["goodput"] == 0
    clock[0] += 20
    spending.add("input", 2.0)
    with spending.on("checkpoint"):
        clock[0] += 10
    found = spending.scalars()
    assert spending.total_s == 11
    assert found == {
        "startup_seconds": 9,
        "input_seconds": 2,
        "checkpoint_seconds": 10,
        "evaluation_seconds": 1,
        "goodput": pytest.approx((40 - 9 - 2 - 10 - 1) / 40),
    }


def test_time_of_a_failed_save_counts(clock):
    spending = Spending()
    with pytest.raises(OSError), spending.on("checkpoint"):
        clock[0] += 3
        raise OSError
    assert spending.total_s == 3


@pytest.mark.parametrize(("steps", "traced"), [((2, 3), {2, 3}), ((5, 9), {5}), (None, set())])
def test_a_trace_has_the_chosen_steps(steps, traced, tmp_path):
    batches = [(index, "batch") for index in range(5)]
    seen = []
    for batch in trace_steps(batches, steps, str(tmp_path)):
        jnp.ones(3).block_until_ready()
        seen.append(batch)
    assert seen == batches
    found = set()
    for file in tmp_path.glob("profile/**/*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                events = (event for event in line.events if event.name == "step")
                found |= {dict(event.stats)["step_num"] for event in events}
    assert found == traced
