"""The arms of SeaDoc in small in one table: nDCG@10 of every query, with paired intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lco_jax.lab.markdown import markdown_table
from lco_jax.metrics.comparison import bootstrap_interval
from lco_jax.metrics.retrieval import chance

Scores = Mapping[str, Float[np.ndarray, "Q"]]
"""nDCG@10 of each query, by task; query i is the same in every arm and stage."""


@dataclass(frozen=True)
class Arm:
    """An arm after each of its stages."""

    name: str
    before: Scores
    """After the generative stage."""
    after: Scores
    """After the text-only contrastive stage."""
    centred: Scores
    """As `before`, with the mean embedding removed: what retrieval gains without training."""
    losses: tuple[float, float]
    """Of the generative stage, per token: over its first and its last steps."""


def arms_table(arms: Sequence[Arm], tasks: Mapping[str, str]) -> str:
    """A Markdown table of every arm before and after, by task.

    Args:
        tasks: heading of each task.

    Raises:
        ValueError: there are no arms, or two of them were scored on other queries.
    """
    sizes = _sizes(arms, tasks)
    head = ["arm", "stage", *(f"{tasks[name]} (n={sizes[name]})" for name in tasks), "loss"]
    rows = []
    for arm in arms:
        loss = f"{arm.losses[0]:.2f} → {arm.losses[1]:.2f}"
        stages = (
            ("generative", arm.before, loss),
            ("generative, mean removed", arm.centred, ""),
            ("+ text-only contrastive", arm.after, ""),
        )
        for stage, scores, said in stages:
            cells = [_with_interval(scores[name], signed=False) for name in tasks]
            rows.append([arm.name, stage, *cells, said])
    by_chance = (f"{100 * chance(sizes[name])['ndcg@10']:.1f}" for name in tasks)
    rows.append(["random order", "", *by_chance, ""])
    return markdown_table(head, rows)


def differences_table(arms: Sequence[Arm], tasks: Mapping[str, str]) -> str:
    """A Markdown table of paired differences: the contrastive stage's gain in every arm, and every
    arm against the first.
    """
    _sizes(arms, tasks)
    rows = []
    for arm in arms:
        for label, start in (("before", arm.before), ("before, mean removed", arm.centred)):
            cells = [_with_interval(arm.after[n] - start[n], signed=True) for n in tasks]
            rows.append([f"{arm.name}: after - {label}", *cells])
    for arm in arms[1:]:
        for stage in ("before", "after"):
            own, first = getattr(arm, stage), getattr(arms[0], stage)
            cells = [_with_interval(own[name] - first[name], signed=True) for name in tasks]
            rows.append([f"{arm.name} - {arms[0].name}, {stage}", *cells])
    return markdown_table(["difference", *tasks.values()], rows)


def _sizes(arms: Sequence[Arm], tasks: Mapping[str, str]) -> dict[str, int]:
    """How many queries each task has."""
    if not arms:
        raise ValueError("there are no arms; a table needs at least one")
    sizes = {}
    for name in tasks:
        found = {
            len(scores[name]) for arm in arms for scores in (arm.before, arm.after, arm.centred)
        }
        if len(found) > 1:
            raise ValueError(f"{name} has {sorted(found)} queries in different arms or stages")
        (sizes[name],) = found
    return sizes


def _with_interval(values: Float[np.ndarray, "Q"], *, signed: bool) -> str:
    low, high = bootstrap_interval(values)
    sign = "+" if signed else ""
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (values.mean(), low, high))
    return f"{mean} [{low}, {high}]"
