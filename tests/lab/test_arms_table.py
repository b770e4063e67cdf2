"""The table of the arms: means, intervals and chance, and what cannot be compared."""

import re

import numpy as np
import pytest

from lco_jax.lab.arms_table import Arm, arms_table, differences_table
from lco_jax.metrics.retrieval import chance

TASKS = {"a": "first", "b": "second"}


def arm(name: str, shift: float, size: int = 40) -> Arm:
    base = np.random.default_rng(0).uniform(0.1, 0.4, size)
    parts = [{"a": base + shift + gain, "b": base} for gain in (0.0, 0.2, 0.1)]
    return Arm(name, *parts, losses=(9.0, 4.5))


def test_tables():
    arms = [arm("low", 0.0), arm("high", 0.3)]
    lines = arms_table(arms, TASKS).splitlines()
    assert lines[0] == "| arm | stage | first (n=40) | second (n=40) | loss |"
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[:2] for row in cells[2:5]] == [
        ["low", "generative"],
        ["low", "generative, mean removed"],
        ["low", "+ text-only contrastive"],
    ]
    mean, low, high = map(float, re.findall(r"-?[\d.]+", cells[2][2]))
    assert mean == pytest.approx(100 * arms[0].before["a"].mean(), abs=0.06)
    assert low < mean < high and high - low < 15
    assert cells[2][4] == "9.00 → 4.50" and cells[-1][2] == f"{100 * chance(40)['ndcg@10']:.1f}"

    rows = differences_table(arms, TASKS).splitlines()
    found = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", "\n".join(rows), re.MULTILINE))
    # Paired: what is the same for every query has no width.
    assert found["low: after - before"] == "+20.0 [+20.0, +20.0]"
    assert found["high: after - before, mean removed"] == "+10.0 [+10.0, +10.0]"
    assert found["high - low, before"] == found["high - low, after"] == "+30.0 [+30.0, +30.0]"


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match=r"a has \[30, 40\] queries"):
        arms_table([arm("low", 0.0), arm("high", 0.0, size=30)], TASKS)
    with pytest.raises(ValueError, match="no arms"):
        differences_table([], TASKS)
