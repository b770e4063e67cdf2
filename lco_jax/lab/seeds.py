"""Jobs of the lab with several seeds, and arms of them, in tables."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from etils import epath
from jaxtyping import Float

from lco_jax.config import Alignment, TrainConfig
from lco_jax.config.io import ScienceChangedError, check_resumable
from lco_jax.lab.markdown import markdown_table
from lco_jax.lab.scores import (
    PairSet,
    StageCurve,
    direction_scores,
    read_curves,
    read_pair_sets,
)
from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.comparison import bootstrap_interval
from lco_jax.train.manifest import read_manifest

_METRIC = "mrr"
CONDITIONS = {
    "before": "before",
    "centred_before": "before, centred",
    "after": "after",
    "centred_after": "after, centred",
    "lexical": "no decoder",
    "lexical_centred": "no decoder, centred",
}
"""What `direction_scores` measures, and how tables call it."""


@dataclass(frozen=True)
class LabRun:
    """A job that has ended: one seed of one arm."""

    arm: str
    seed: int
    revision: str
    curves: list[StageCurve]
    sets: list[PairSet]
    configs: Mapping[str, TrainConfig] = field(default_factory=dict)
    """Of its stages."""

    @cached_property
    def scores(self) -> list[dict[str, dict[str, dict[str, Float[np.ndarray, "n"]]]]]:
        """Of each set, `direction_scores`."""
        return [direction_scores(pairs) for pairs in self.sets]


def read_run(workdir: str, stages: Sequence[str]) -> LabRun:
    """A job by its folder.

    Args:
        stages: their names; the last but one aligns or speaks, the last refines.

    Raises:
        ValueError: there are fewer than two, or the last was not evaluated before and after.
    """
    root = epath.Path(workdir)
    if len(stages) < 2:
        raise ValueError(f"{root} has no two stages of the lab, only {list(stages)}")
    sets = read_pair_sets(root / stages[-1])
    if not sets:
        raise ValueError(f"{root / stages[-1]} has no two evaluations: run it to its end first")
    manifests = {name: read_manifest(str(root / name)) for name in stages}
    before, last = (manifests[name] for name in stages[-2:])
    decoder = before.config.model.trainable.decoder
    arm = "decoder frozen" if decoder is None else f"decoder: LoRA {decoder.rank}"
    if isinstance(before.config.objective, Alignment):
        arm = "aligned only"
    if last.config.model.num_layers is not None:
        arm += f", {last.config.model.num_layers} layers"
    return LabRun(
        arm=arm,
        seed=before.config.seed,
        revision=before.git_revision or "unknown",
        curves=read_curves({name: root / name for name in stages}),
        sets=sets,
        configs={name: manifest.config for name, manifest in manifests.items()},
    )


def retrieval_table(runs: Sequence[LabRun]) -> str:
    """MRR of every arm and direction before and after the last stage, and of the controls, as means
    over seeds. `chance` is the mean of a random order."""
    rows = []
    for arm, members in _by_arm(runs).items():
        for direction, found in _pool(members).items():
            size = found["after"].shape[1]
            chance = f"{np.mean(1 / np.arange(1, size + 1)):.3f}"
            means = [f"{found[name].mean():.3f}" if name in found else "" for name in CONDITIONS]
            rows.append([arm, str(len(members)), direction, str(size), chance, *means])
    return markdown_table(("arm", "seeds", "direction", "n", "chance", *CONDITIONS.values()), rows)


def changes_table(runs: Sequence[LabRun]) -> str:
    """What the last stage changes in MRR: against the embeddings before it, against those without
    their mean, and with the mean removed on both sides.

    The 95 % intervals are bootstraps over queries of the changes' means over seeds: they cover the
    choice of queries; how far seeds differ is seen from the changes of each, in round brackets.
    """
    compared = {
        "after - before": ("after", "before"),
        "after - before, centred": ("after", "centred_before"),
        "both centred": ("centred_after", "centred_before"),
    }
    rows = []
    for arm, members in _by_arm(runs).items():
        for direction, found in _pool(members).items():
            changes = [_change(found[new] - found[old]) for new, old in compared.values()]
            rows.append([arm, direction, *changes])
    return markdown_table(("arm", "direction", *compared), rows)


def anisotropy_table(runs: Sequence[LabRun]) -> str:
    """The mean cosine of two items before and after, of every modality, as means over seeds."""
    rows = []
    for arm, members in _by_arm(runs).items():
        for index, first in enumerate(members[0].sets):
            before, after = (
                np.mean([mean_cosine(run.sets[index].of_modality()[name]) for run in members])
                for name in ("before", "after")
            )
            rows.append([arm, first.modality, f"{before:.3f}", f"{after:.3f}"])
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
            minutes = f"{summary['seconds'] / 60:.0f}"
            shown = [curve.name, str(summary["steps"]), minutes, f"{first:.2f}", f"{last:.2f}"]
            rows.append([run.arm, str(run.seed), *shown, run.revision])
    head = ("arm", "seed", "stage", "steps", "minutes", "first loss", "last loss", "revision")
    return markdown_table(head, rows)


def _by_arm(runs: Sequence[LabRun]) -> Mapping[str, list[LabRun]]:
    """The runs of every arm.

    Raises:
        ValueError: runs of one arm differ in more than their seeds, or not even in those.
    """
    arms = defaultdict(list)
    for run in runs:
        arms[run.arm].append(run)
    for arm, members in arms.items():
        seeds = [run.seed for run in members]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"runs of {arm!r} have the seeds {seeds}: one of them counts twice")
        for run in members[1:]:
            _require_same_but_seed(arm, members[0], run)
    return arms


def _require_same_but_seed(arm: str, first: LabRun, other: LabRun) -> None:
    pair = f"runs of {arm!r}, seeds {first.seed} and {other.seed}"
    if [pairs.lines for pairs in first.sets] != [pairs.lines for pairs in other.sets]:
        raise ValueError(f"{pair}, were evaluated on different pairs")
    for name, config in first.configs.items():
        # Each starts from the model of its own stage before.
        own = other.configs[name]
        model = replace(own.model, path=config.model.path)
        try:
            check_resumable(config, replace(own, model=model, seed=config.seed))
        except ScienceChangedError as error:
            raise ValueError(f"{pair}, differ in stage {name!r}: {error}") from error


def _pool(runs: Sequence[LabRun]) -> dict[str, dict[str, Float[np.ndarray, "S n"]]]:
    """By direction and by what is compared: the scores of each seed (row) and query."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for scores in zip(*(run.scores for run in runs), strict=True):
        for direction, compared in scores[0].items():
            found[direction] = {
                name: np.stack([one[direction][name][_METRIC] for one in scores])
                for name in compared
            }
    return found


def _change(differences: Float[np.ndarray, "S n"]) -> str:
    low, high = bootstrap_interval(differences.mean(axis=0))
    by_seed = ", ".join(f"{value:+.3f}" for value in differences.mean(axis=1))
    return f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}] ({by_seed})"
