"""The grid and its arms as panels of the scaling law, runs of the bound, and tables."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lco_jax.analysis.bound_runs import Run, parse_run
from lco_jax.analysis.prior import shared_sources
from lco_jax.analysis.scaling import Fit, Panel, Point
from lco_jax.lab.grid import Record
from lco_jax.lab.grid_config import FreshModel, ScalingGrid
from lco_jax.lab.markdown import markdown_table
from lco_jax.runtime.disks import replace_text

_BOUND_FIELDS = (
    *("num_candidates", "information", "empirical_loss", "kl", "num_samples", "temperature"),
    "measured_loss",
)


def panels(records: Sequence[Record]) -> dict[str, Panel]:
    """One panel for each ability: held-out generation before refinement, retrieval after."""
    return {
        name: Panel(
            title=f"Small lab, {name}",
            x_label="minus the held-out generative loss before refinement (nats a token)",
            y_label="held-out retrieval after refinement (MRR, mean of both ways, %)",
            points=tuple(
                Point(
                    f"{record['budget']}/{record['seed']}",
                    -record["generation"][name]["nats_per_token"],
                    100 * record["after"][name]["mrr"],
                )
                for record in records
            ),
        )
        for name in records[0]["generation"]
    }


def bound_runs(records: Sequence[Record], grid: ScalingGrid) -> list[Run]:
    """What each cell says of Theorem 1, and why it does not cover it."""
    return [
        parse_run(
            {
                "name": record["name"],
                **{name: record["bound"][name] for name in _BOUND_FIELDS},
                "invalid": _reasons_against(grid, record["budget"]),
            }
        )
        for record in records
    ]


def _reasons_against(grid: ScalingGrid, budget: int) -> list[str]:
    """How the prior of a cell, the model before refinement, depends on the training data."""
    own, reasons = grid.refine.data.sources, []
    if budget:
        read = shared_sources(own, grid.generate.data.sources)
        reasons += [f"the prior was trained on {', '.join(read)}"] if read else []
    if isinstance(grid.model, FreshModel):
        shared = shared_sources(own, grid.model.texts)
        reasons += [f"its tokenizer was learned from {', '.join(shared)}"] if shared else []
    return reasons


def write_report(
    folder: Path,
    records: Sequence[Record],
    fits: dict[str, Fit],
    bounds: Sequence[dict[str, Any]],
    arms: Sequence[Record],
) -> None:
    """Write `grid.md`, and `grid.json` with all that was measured."""
    content = {"cells": list(records), "arms": list(arms)}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    replace_text(folder / "grid.json", text + "\n")
    sections = ["Made by `python launch/scaling.py --grid`.\n"]
    sections += [_cells(records), _law(fits), _bounds(bounds)]
    if arms:
        sections.append(_arms(records, arms))
    replace_text(folder / "grid.md", "\n".join(sections))


def _cells(records: Sequence[Record]) -> str:
    names = list(records[0]["generation"])
    head = ["steps", "seed"]
    for name in names:
        head += [f"{name}: nats a token", "MRR before, %", "MRR after, %", "mean cosine"]
    rows = []
    for record in records:
        row = [str(record["budget"]), str(record["seed"])]
        for name in names:
            before, after = record["before"][name], record["after"][name]
            cosines = (value["mean_cosine_anchors"] for value in (before, after))
            row += [
                f"{record['generation'][name]['nats_per_token']:.3f}",
                f"{100 * before['mrr']:.1f}",
                f"{100 * after['mrr']:.1f}",
                " → ".join(f"{cosine:.2f}" for cosine in cosines),
            ]
        rows.append(row)
    return _table("Cells", head, rows)


def _law(fits: dict[str, Fit]) -> str:
    head = ["panel", "points", "slope", "95 % (bootstrap)", "95 % (t)", "r", "p"]
    rows = [
        [
            name,
            str(fit.num_points),
            f"{fit.slope:.2f}",
            f"{fit.low:.2f} to {fit.high:.2f}",
            "" if fit.t_low is None else f"{fit.t_low:.2f} to {fit.t_high:.2f}",
            f"{fit.pearson_r:.2f}",
            "" if fit.p_value is None else f"{fit.p_value:.4f}",
        ]
        for name, fit in fits.items()
    ]
    return _table("Scaling law: MRR in % for one nat a token less", head, rows)


def _bounds(bounds: Sequence[dict[str, Any]]) -> str:
    head = ["cell", "measured", "as printed", "valid", "log N", "I", "slack", "KL", "n"]
    head += ["least value", "KL below", "prior"]
    rows = [
        [
            row["name"],
            *(f"{row[name]:.3f}" for name in ("measured_loss", "paper", "valid", "log_n")),
            f"{row['information']:.2f}" + (" (clipped)" if row["clipped"] else ""),
            f"{row['paper_slack']:.3f} / {row['slack']:.3f}",
            f"{row['kl']:.0f}",
            str(row["num_samples"]),
            f"{row['limits']['least']:.2f}",
            "none"
            if row["limits"]["affordable_kl"] is None
            else f"{row['limits']['affordable_kl']:.1f}",
            "dependent" if row["invalid"] else "",
        ]
        for row in bounds
    ]
    table = _table("Theorem 1: bound and held-out InfoNCE, nats", head, rows)
    return f"{table}\n{_reading(bounds)}"


def _reading(bounds: Sequence[dict[str, Any]]) -> str:
    """What the columns of the bounds mean, and why runs are not covered."""
    lines = [
        "Slack is the least one, of the bound as printed and of the valid one. *Least value*: the "
        "valid bound at KL = 0. *KL below*: the KL under which it would be below log N, the loss "
        "of an encoder that knows nothing; *none* where even KL = 0 leaves it above.",
    ]
    reasons: dict[str, list[str]] = {}
    for row in bounds:
        for reason in row["invalid"]:
            reasons.setdefault(reason, []).append(row["name"])
    if reasons:
        lines.append(
            "A prior that depends on the training data is none in the sense of the theorem, and "
            "these figures are no bounds:"
        )
        lines += [f"* {reason}: {', '.join(names)}" for reason, names in reasons.items()]
    return "\n\n".join(lines[:2]) + "\n" + "".join(f"\n{line}" for line in lines[2:]) + "\n"


def _arms(records: Sequence[Record], arms: Sequence[Record]) -> str:
    names = list(records[0]["generation"])
    start = max(records, key=lambda record: (record["budget"], -record["seed"]))
    head = ["arm", "what trains"]
    head += [f"{name}: {measure}" for name in names for measure in ("MRR, %", "R@10, %", "cosine")]
    rows = [["none", "", *_scores(start["before"], names)]]
    rows += [[arm["name"], arm["what"], *_scores(arm["after"], names)] for arm in arms]
    return _table(f"Arms from {start['name']}", head, rows)


def _scores(measured: dict[str, Any], names: Iterable[str]) -> list[str]:
    cells = []
    for name in names:
        own = measured[name]
        sides = own["mean_cosine_anchors"], own["mean_cosine_positives"]
        cells += [f"{100 * own['mrr']:.1f}", f"{100 * own['recall@10']:.1f}"]
        cells.append(f"{statistics.mean(sides):.2f}")
    return cells


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return f"## {title}\n\n{markdown_table(head, list(rows))}"
