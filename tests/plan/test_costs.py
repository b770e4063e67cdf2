"""The costs of recipes: a plan's row by hand, and every row of the repository's plans."""

from pathlib import Path

import pytest

from benchmarks.cost_table import chips_of, cost_of, read_plans

ROOT = Path(__file__).parents[2]


def test_a_row_by_hand():
    row = (
        "| `--config configs/lco_omni_7b_text.py --data.batch-size 1056 --topology v5p:4x4x4 "
        "--num-slices 2` | yes | 14.8 | 4.9 | 18.9 / 102.8 | 4.24 N | 1,056 | 80% | | edc1552 |"
    )
    ((options, milliseconds),) = read_plans(f"# Plans\n\n{row}\n| 1,088 | 48.1 |\n")
    assert milliseconds == 1056
    name, place, batch, cost = cost_of(options, milliseconds)
    assert (name, place, batch) == ("lco_omni_7b_text", "2 x v5p:4x4x4", 1056)
    # 276,000 / 1,056 = 261.4: 261 whole batches in each of two passes.
    assert (cost.steps, cost.chips) == (522, 128)
    assert cost.chip_hours == pytest.approx(522 * 1.056 * 128 / 3600)


def test_slices():
    assert [chips_of("v5e:16x16"), chips_of("v5p:4x4x4", 2)] == [256, 128]


def test_every_plan_has_a_cost():
    plans = read_plans((ROOT / "docs/plan.md").read_text())
    assert len(plans) > 10
    for options, milliseconds in plans:
        cost = cost_of(options, milliseconds)[-1]
        assert cost.steps > 0 and cost.chip_hours > 0
