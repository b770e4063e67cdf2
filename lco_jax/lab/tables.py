"""What the lab's jobs have measured, as Markdown tables and as numbers that prose may use."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lco_jax.lab.conditions import CONDITIONS, SHUFFLED, TREATMENTS, WHOLE, Control, strongest
from lco_jax.lab.markdown import markdown_table, without_empty_columns
from lco_jax.lab.seeds import Change, Direction, LabRun, by_arm
from lco_jax.metrics.anisotropy import mean_cosine

_MINUTE_S = 60


def retrieval_table(found: Sequence[Direction]) -> str:
    """MRR of every arm and direction beside chance and the explanations that count most, as far
    as they were measured."""
    head = (
        *("arm", "direction", "seeds", "queries", "chance", "before"),
        *("all layers, untouched", "shuffled pairs", "strongest without a decoder", "after"),
    )
    rows = []
    for one in found:
        lexical = strongest(one.means, lexical=True)
        rows.append([
            *(one.arm, one.name, str(len(one.sizes)), str(one.num_queries), number(one.chance)),
            *(_mean(one, Control(name)) for name in ("before", WHOLE, SHUFFLED)),
            _named(one, lexical),
            _mean(one, Control("after")),
        ])  # fmt: skip
    return markdown_table(*without_empty_columns(head, rows))


def controls_table(found: Sequence[Direction]) -> str:
    """MRR of every condition under every treatment; the strongest explanation is in bold."""
    directions = list(dict.fromkeys(one.name for one in found))
    controls = [Control(name, treatment) for name in CONDITIONS for treatment in TREATMENTS]
    rows = []
    for arm, members in _arms(found).items():
        best = {name: strongest(one.means) for name, one in members.items()}
        by_chance = [number(members[name].chance) if name in members else "" for name in directions]
        rows.append([arm, "chance", *by_chance])
        for control in controls:
            cells = [
                _mean(members[name], control) if name in members else "" for name in directions
            ]
            cells = [
                f"**{cell}**" if cell and best[name] == control else cell
                for name, cell in zip(directions, cells, strict=True)
            ]
            if any(cells):
                rows.append([arm, control.title, *cells])
    return markdown_table(("arm", "condition", *directions), rows)


def changes_table(found: Sequence[Direction]) -> str:
    """The refined model's MRR less that of each explanation, with intervals over seeds and queries
    and the change of each seed."""
    rows = [
        [one.arm, one.name, _title(title, change), signed(change), _seeds(change)]
        for one in found
        for title, change in one.changes.items()
    ]
    return markdown_table(("arm", "direction", "against", "change", "each seed"), rows)


def summary_table(found: Sequence[Direction]) -> str:
    """The changes that decide, a line for every arm and direction."""
    titles = {
        "before": "before",
        "before, each side whitened": "before, each side whitened",
        "all layers, untouched": "all layers, untouched",
        "refined on shuffled pairs": "shuffled pairs",
        "strongest without a decoder": "strongest without a decoder",
        "strongest of all": "strongest of all",
    }
    rows = [
        [one.arm, one.name]
        + [signed(one.changes[title]) if title in one.changes else "" for title in titles]
        for one in found
    ]
    return markdown_table(*without_empty_columns(("arm", "after, less", *titles.values()), rows))


def anisotropy_table(runs: Sequence[LabRun]) -> str:
    """The mean cosine of two items before and after, of every modality, as means over seeds."""
    rows = []
    for arm, members in by_arm(runs).items():
        for index, first in enumerate(members[0].sets):
            before, after = (
                np.mean([mean_cosine(run.sets[index].of_modality()[name]) for run in members])
                for name in ("before", "after")
            )
            rows.append([arm, first.modality, number(before), number(after)])
    return markdown_table(("arm", "modality", "before", "after"), rows)


def stages_table(runs: Sequence[LabRun], ends: int = 10) -> str:
    """Steps, time and loss of every stage of every run; losses are means over the first and the
    last `ends` steps."""
    rows = []
    for run in runs:
        for curve in run.curves:
            losses = [record["loss"] for record in curve.train]
            first, last = (np.mean(part) for part in (losses[:ends], losses[-ends:]))
            summary = curve.summary()
            minutes = f"{summary['seconds'] / _MINUTE_S:.1f}"
            shown = [curve.name, str(summary["steps"]), minutes, f"{first:.2f}", f"{last:.2f}"]
            rows.append([run.arm, str(run.seed), *shown, run.revision])
    head = ("arm", "seed", "stage", "steps", "minutes", "first loss", "last loss", "revision")
    return markdown_table(head, rows)


def small_table(found: Sequence[Direction]) -> str:
    """Of one arm: before and after, and what the change is worth, with the number of seeds and of
    comparisons said above it."""
    rows = []
    for one in found:
        change, lexical = one.changes["before"], strongest(one.means, lexical=True)
        rows.append([
            *(f"{one.name.replace('->', ' → ')} ({one.num_queries})", number(one.chance)),
            *(_mean(one, Control("before")), _mean(one, Control("after")), signed(change)),
            *(_mean(one, Control(SHUFFLED)), _named(one, lexical)),
        ])  # fmt: skip
    head = ("MRR (queries)", "chance", "before", "after", "change", "shuffled pairs", "no decoder")
    seeds = max(len(one.sizes) for one in found)
    of, over = ("One seed", "queries")
    if seeds > 1:
        of, over = (f"Means of {seeds} seeds", "seeds and queries")
    said = (
        f"{of}; in brackets 95 % intervals over {over}. With those of all controls "
        f"{count_comparisons(found)}.\n\n"
    )
    return said + markdown_table(head, rows)


def count_comparisons(found: Sequence[Direction]) -> str:
    """How many intervals there are in all, and how many of them would exclude zero by chance."""
    changes = [change for one in found for change in one.different_changes]
    excluding = sum(change.excludes_zero for change in changes)
    return (
        f"there are {len(changes)} in all: {excluding} exclude zero, and about "
        f"{0.05 * len(changes):.0f} would if nothing had changed"
    )


def counts(found: Sequence[Direction]) -> str:
    """Of every arm how many intervals there are, as a list."""
    lines = [
        f"* {arm}: {count_comparisons(list(members.values()))}"
        for arm, members in _arms(found).items()
    ]
    return "\n".join(lines) + "\n"


def as_numbers(found: Sequence[Direction], runs: Sequence[LabRun]) -> dict[str, Any]:
    """The same numbers for `figures.json`."""
    arms: dict[str, Any] = {}
    for arm, members in _arms(found).items():
        own = by_arm(runs)[arm]
        changes = [change for one in members.values() for change in one.different_changes]
        arms[arm] = {
            "seeds": [run.seed for run in own],
            "revisions": sorted({run.revision for run in own}),
            "minutes_of_steps": [
                sum(curve.summary()["seconds"] for curve in run.curves) / _MINUTE_S for run in own
            ],
            "num_comparisons": len(changes),
            "num_excluding_zero": sum(change.excludes_zero for change in changes),
            "num_expected_by_chance": 0.05 * len(changes),
            "directions": {name: _numbers_of(one) for name, one in members.items()},
        }
    return arms


def _numbers_of(one: Direction) -> dict[str, Any]:
    return {
        "queries": one.num_queries,
        "same_queries_for_all_seeds": one.same_queries,
        "chance": one.chance,
        "mrr": {control.title: mean for control, mean in one.means.items()},
        "changes": {
            title: {
                "against": change.against.title,
                "mean": change.mean,
                "low": change.low,
                "high": change.high,
                "by_seed": change.by_seed,
                "excludes_zero": change.excludes_zero,
            }
            for title, change in one.changes.items()
        },
    }


def number(value: float) -> str:
    """As tables show scores."""
    return f"{value:.3f}"


def signed(change: Change) -> str:
    """A change with its interval."""
    return f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def _arms(found: Sequence[Direction]) -> Mapping[str, dict[str, Direction]]:
    arms: dict[str, dict[str, Direction]] = defaultdict(dict)
    for one in found:
        arms[one.arm][one.name] = one
    return arms


def _mean(one: Direction, control: Control) -> str:
    return number(one.means[control]) if control in one.means else ""


def _named(one: Direction, control: Control | None) -> str:
    """Its mean, and which one it is."""
    if control is None:
        return ""
    named = control.title.removeprefix("no decoder: ")
    return f"{number(one.means[control])} ({named})"


def _title(title: str, change: Change) -> str:
    return title if title == change.against.title else f"{title} ({change.against.title})"


def _seeds(change: Change) -> str:
    return ", ".join(f"{value:+.3f}" for value in change.by_seed)
