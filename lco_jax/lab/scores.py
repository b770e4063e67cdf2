"""The figures of a job that aligns media and then refines with text only: `report.json`."""

import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.comparison import EmbeddedPairs, bootstrap_interval
from lco_jax.train.metrics import read_metrics

_EVALUATIONS = "evaluations"
_LEXICAL = "lexical.npz"
_MODALITIES = ("image", "audio", "text")
_REPORTED = ("recall@1", "recall@10", "mrr")


@dataclass(frozen=True)
class PairSet:
    """Held-out pairs of one kind, with the vectors before and after the last stage."""

    modality: str
    """Of the anchors; the positives are texts."""
    folder: epath.Path
    lines: list[dict[str, str]]
    before: EmbeddedPairs
    after: EmbeddedPairs
    lexical: EmbeddedPairs | None
    """Those of the baseline without a decoder."""

    def of_modality(self) -> dict[str, Float[np.ndarray, "n E"]]:
        """The vectors before and after of what the pairs are named after."""
        found = {"before": self.before, "after": self.after}
        side = "positives" if self.modality == "text" else "anchors"
        return {name: getattr(pairs, side) for name, pairs in found.items()}


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


def read_pair_sets(folder: epath.Path) -> list[PairSet]:
    """The pairs that a stage was evaluated on; those whose evaluations are not two are left out."""
    root = folder / _EVALUATIONS
    found = []
    for place in (root, *sorted(path for path in root.glob("*") if path.is_dir())):
        steps = [file for file in place.glob("*.npz") if file.stem.isdigit()]
        files = sorted(steps, key=lambda file: int(file.stem))
        if len(files) < 2:
            continue
        lines = [json.loads(line) for line in (place / "pairs.jsonl").read_text().split("\n")[:-1]]
        modality = next((kind for kind in _MODALITIES if kind in lines[0]), "text")
        lexical = _read(place / _LEXICAL, 0) if (place / _LEXICAL).exists() else None
        before, after = (_read(file, int(file.stem)) for file in (files[0], files[-1]))
        found.append(PairSet(modality, place, lines, before, after, lexical))
    return found


def direction_scores(pairs: PairSet) -> dict[str, dict[str, dict[str, Float[np.ndarray, "n"]]]]:
    """By direction of search and by what is compared (`before`, `after`, `centred_before`,
    `centred_after`, of media also `lexical` and `lexical_centred`): every query's scores."""
    evaluations = {
        "before": pairs.before,
        "after": pairs.after,
        "centred_before": pairs.before.centred(),
        "centred_after": pairs.after.centred(),
    }
    if pairs.lexical is not None:
        evaluations["lexical"] = pairs.lexical
        evaluations["lexical_centred"] = pairs.lexical.centred()
    return {
        direction: {name: turn(found).scores() for name, found in evaluations.items()}
        for direction, turn in _directions(pairs.modality).items()
    }


def score(curves: Sequence[StageCurve], sets: Sequence[PairSet]) -> dict[str, Any]:
    """What `report.json` says: of every direction the figures before and after with the 95 %
    bootstrap interval of the MRR, the controls, and the paired intervals of the changes.
    """
    retrieval, controls, changes, anisotropy = {}, {}, {}, {}
    for pairs in sets:
        for direction, scores in direction_scores(pairs).items():
            described = {name: _describe(terms) for name, terms in scores.items()}
            retrieval[direction] = {name: described.pop(name) for name in ("before", "after")}
            controls[direction] = described
            changes[direction] = {
                "over_before": _change(scores["after"], scores["before"]),
                "over_centred_before": _change(scores["after"], scores["centred_before"]),
            }
        anisotropy[pairs.modality] = {
            name: float(mean_cosine(found)) for name, found in pairs.of_modality().items()
        }
    return {
        "retrieval": retrieval,
        "anisotropy": anisotropy,
        "stages": [curve.summary() for curve in curves],
        "controls": controls,
        "changes": changes,
    }


def turned(pairs: EmbeddedPairs) -> EmbeddedPairs:
    """The same pairs, with the positives looking for their anchors."""
    return dataclasses.replace(pairs, anchors=pairs.positives, positives=pairs.anchors)


def _directions(modality: str) -> dict[str, Any]:
    if modality == "text":
        return {"text->text": lambda pairs: pairs}
    return {f"{modality}->text": lambda pairs: pairs, f"text->{modality}": turned}


def _describe(scores: dict[str, np.ndarray]) -> dict[str, float]:
    low, high = bootstrap_interval(scores["mrr"])
    means = {name: float(scores[name].mean()) for name in _REPORTED}
    return {**means, "n": len(scores["mrr"]), "low": low, "high": high}


def _change(after: dict[str, np.ndarray], before: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of every metric the mean difference and its paired interval."""
    found = {}
    for name in _REPORTED:
        difference = after[name] - before[name]
        low, high = bootstrap_interval(difference)
        found[name] = {"change": float(difference.mean()), "low": low, "high": high}
    return found


def _read(file: epath.Path, step: int) -> EmbeddedPairs:
    with np.load(io.BytesIO(file.read_bytes())) as arrays:
        return EmbeddedPairs(step, arrays["anchors"], arrays["positives"])
