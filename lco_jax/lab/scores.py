"""The figures of a job that aligns media and then refines with text only: `report.json`."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from lco_jax.lab.conditions import (
    SHUFFLED,
    WHOLE,
    Control,
    Scores,
    all_treatments,
    comparisons,
    distinct,
)
from lco_jax.lab.lexical import LEXICAL
from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.comparison import EmbeddedPairs, bootstrap_interval
from lco_jax.metrics.retrieval import chance
from lco_jax.train.metrics import read_metrics

_EVALUATIONS = "evaluations"
_MODALITIES = ("image", "audio", "text")
_REPORTED = ("recall@1", "recall@10", "mrr")


@dataclass(frozen=True)
class PairSet:
    """Held-out pairs of one kind, with their vectors under several conditions."""

    modality: str
    """Of the anchors; the positives are texts."""
    folder: epath.Path
    lines: list[dict[str, str]]
    evaluations: Mapping[str, EmbeddedPairs]
    """By condition (see `conditions.py`); `before` and `after` the last stage are always there."""

    def of_modality(self) -> dict[str, Float[np.ndarray, "n E"]]:
        """The vectors before and after of what the pairs are named after."""
        side = "positives" if self.modality == "text" else "anchors"
        return {name: getattr(self.evaluations[name], side) for name in ("before", "after")}


@dataclass(frozen=True)
class StageCurve:
    """What a stage logged."""

    name: str
    objective: str
    train: list[dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """Its line in `report.json`; seconds are those of its steps."""
        steps = np.diff([0, *(record["step"] for record in self.train)])
        seconds = float(np.dot(steps, [record["step_seconds"] for record in self.train]))
        return {
            "name": self.name,
            "objective": self.objective,
            "steps": self.train[-1]["step"],
            "seconds": seconds,
            "first_loss": self.train[0]["loss"],
            "last_loss": self.train[-1]["loss"],
        }


def read_curves(folders: dict[str, epath.Path]) -> list[StageCurve]:
    """The curves of the stages, by name, in order."""
    curves = []
    for name, folder in folders.items():
        manifest = json.loads((folder / "config.json").read_text())
        records = read_metrics(folder / "metrics.jsonl")
        train = [record for record in records if record["kind"] == "train"]
        curves.append(StageCurve(name, manifest["config"]["objective"]["type"], train))
    return curves


def read_pair_sets(folder: epath.Path, shuffled: epath.Path | None = None) -> list[PairSet]:
    """The pairs that a stage was evaluated on; those whose evaluations are not two are left out.

    Args:
        shuffled: the same stage on shuffled pairs, if there is one.

    Raises:
        ValueError: that was evaluated on other pairs.
    """
    root = folder / _EVALUATIONS
    found = []
    for place in (root, *sorted(path for path in root.glob("*") if path.is_dir())):
        files = _steps_in(place)
        if len(files) < 2:
            continue
        lines = _lines_of(place)
        modality = next((kind for kind in _MODALITIES if kind in lines[0]), "text")
        kept = {
            "before": files[0],
            **{name: place / f"{name}.npz" for name in (WHOLE, *LEXICAL)},
            "after": files[-1],
        }
        if shuffled is not None:
            other = shuffled / _EVALUATIONS / place.relative_to(root)
            if _lines_of(other) != lines:
                raise ValueError(f"{other} and {place} were evaluated on different pairs")
            kept[SHUFFLED] = _steps_in(other)[-1]
        evaluations = {name: _read(file) for name, file in kept.items() if file.exists()}
        found.append(PairSet(modality, place, lines, evaluations))
    return found


def direction_scores(pairs: PairSet) -> dict[str, dict[Control, Scores]]:
    """By direction of search, and by condition and treatment: every query's scores."""
    treated = all_treatments(pairs.evaluations)
    return {
        direction: {control: turn(found).scores() for control, found in treated.items()}
        for direction, turn in _directions(pairs.modality).items()
    }


def score(curves: Sequence[StageCurve], sets: Sequence[PairSet]) -> dict[str, Any]:
    """What `report.json` says: of every direction chance and the figures before and after with the
    95 % bootstrap interval of the MRR, the same of every control, and the paired intervals of what
    the last stage changes against each.
    """
    retrieval, controls, changes, anisotropy = {}, {}, {}, {}
    num_comparisons = 0
    for pairs in sets:
        for direction, scores in direction_scores(pairs).items():
            means = {control: found["mrr"].mean() for control, found in scores.items()}
            retrieval[direction] = {
                "chance": {name: chance(len(pairs.lines))[name] for name in _REPORTED},
                **{name: _describe(scores[Control(name)]) for name in ("before", "after")},
            }
            controls[direction] = {
                control.title: _describe(found) for control, found in scores.items()
            }
            compared = comparisons(means)
            changes[direction] = {
                title: {"against": old.title} | _change(scores[new], scores[old])
                for title, (new, old) in compared.items()
            }
            num_comparisons += len(distinct(compared))
        anisotropy[pairs.modality] = {
            name: float(mean_cosine(found)) for name, found in pairs.of_modality().items()
        }
    return {
        "retrieval": retrieval,
        "anisotropy": anisotropy,
        "stages": [curve.summary() for curve in curves],
        "controls": controls,
        "changes": changes,
        "num_comparisons": num_comparisons,
    }


def turned(pairs: EmbeddedPairs) -> EmbeddedPairs:
    """The same pairs, with the positives looking for their anchors."""
    return dataclasses.replace(pairs, anchors=pairs.positives, positives=pairs.anchors)


def _directions(modality: str) -> dict[str, Any]:
    if modality == "text":
        return {"text->text": lambda pairs: pairs}
    return {f"{modality}->text": lambda pairs: pairs, f"text->{modality}": turned}


def _describe(scores: Scores) -> dict[str, float]:
    low, high = bootstrap_interval(scores["mrr"])
    means = {name: float(scores[name].mean()) for name in _REPORTED}
    return {**means, "n": len(scores["mrr"]), "low": low, "high": high}


def _change(after: Scores, before: Scores) -> dict[str, Any]:
    """Of every metric the mean difference and its paired interval."""
    found = {}
    for name in _REPORTED:
        difference = after[name] - before[name]
        low, high = bootstrap_interval(difference)
        found[name] = {"change": float(difference.mean()), "low": low, "high": high}
    return found


def _steps_in(place: epath.Path) -> list[epath.Path]:
    steps = [file for file in place.glob("*.npz") if file.stem.isdigit()]
    return sorted(steps, key=lambda file: int(file.stem))


def _lines_of(place: epath.Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (place / "pairs.jsonl").read_text().split("\n")[:-1]]


def _read(file: epath.Path) -> EmbeddedPairs:
    step = int(file.stem) if file.stem.isdigit() else 0
    with np.load(io.BytesIO(file.read_bytes())) as arrays:
        return EmbeddedPairs(step, arrays["anchors"], arrays["positives"])
