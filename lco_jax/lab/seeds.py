"""Jobs of the lab that have ended: seeds and folds of one arm, put together."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from etils import epath
from jaxtyping import Float

from lco_jax.config import Alignment, TrainConfig
from lco_jax.config.io import ScienceChangedError, check_resumable
from lco_jax.lab.conditions import SHUFFLED, Control, Scores, comparisons, distinct
from lco_jax.lab.held_apart import without_fold
from lco_jax.lab.scores import (
    PairSet,
    StageCurve,
    direction_scores,
    read_curves,
    read_pair_sets,
)
from lco_jax.metrics.comparison import two_level_interval
from lco_jax.metrics.retrieval import chance
from lco_jax.train.manifest import read_manifest

METRIC = "mrr"


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
    def scores(self) -> list[dict[str, dict[Control, Scores]]]:
        """Of each set, `direction_scores`."""
        return [direction_scores(pairs) for pairs in self.sets]


@dataclass(frozen=True)
class Change:
    """How much more one control has than another, on the mean over queries and seeds."""

    against: Control
    mean: float
    low: float
    high: float
    by_seed: list[float]

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is on one side of it."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Direction:
    """All seeds of an arm in one direction of search."""

    arm: str
    name: str
    scores: Mapping[Control, list[Float[np.ndarray, "n"]]]
    """Of each control the scores of each seed's queries."""
    same_queries: bool
    """Whether all seeds have the same queries; in folds none are in common."""

    @property
    def sizes(self) -> list[int]:
        """How many queries each seed has."""
        return [len(values) for values in self.scores[Control("after")]]

    @property
    def num_queries(self) -> int:
        """How many different queries there are."""
        return self.sizes[0] if self.same_queries else sum(self.sizes)

    @property
    def chance(self) -> float:
        """The mean of random orders."""
        return float(np.average([chance(n)[METRIC] for n in self.sizes], weights=self.sizes))

    @cached_property
    def means(self) -> dict[Control, float]:
        """Over queries and seeds."""
        return {
            control: float(np.concatenate(values).mean()) for control, values in self.scores.items()
        }

    @cached_property
    def changes(self) -> dict[str, Change]:
        """What is compared with what, by heading (see `comparisons`)."""
        return {
            title: self._change(new, old) for title, (new, old) in comparisons(self.means).items()
        }

    @property
    def different_changes(self) -> list[Change]:
        """Those that compare different things: as many intervals as there really are."""
        return [self.changes[title] for title in distinct(comparisons(self.means))]

    def _change(self, new: Control, old: Control) -> Change:
        pairs = zip(self.scores[new], self.scores[old], strict=True)
        differences = [after - before for after, before in pairs]
        low, high = two_level_interval(differences, same_queries=self.same_queries)
        mean = float(np.concatenate(differences).mean())
        return Change(old, mean, low, high, [float(one.mean()) for one in differences])


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
    shuffled = root / SHUFFLED
    sets = read_pair_sets(root / stages[-1], shuffled if shuffled.exists() else None)
    if not sets:
        raise ValueError(f"{root / stages[-1]} has no two evaluations: run it to its end first")
    manifests = {name: read_manifest(str(root / name)) for name in stages}
    before, last = (manifests[name] for name in stages[-2:])
    decoder = before.config.model.trainable.decoder
    arm = "decoder frozen" if decoder is None else f"decoder: LoRA {decoder.rank}"
    if isinstance(before.config.objective, Alignment):
        arm = "quickstart"
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


def by_arm(runs: Sequence[LabRun]) -> Mapping[str, list[LabRun]]:
    """The runs of every arm.

    Raises:
        ValueError: runs of one arm differ in more than their seeds and folds, or not even in seeds.
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
    if [one.modality for one in first.sets] != [one.modality for one in other.sets]:
        raise ValueError(f"{pair}, were evaluated on different kinds of pairs")
    for name, config in first.configs.items():
        # Each starts from the model of its own stage before.
        own = other.configs[name]
        model = replace(own.model, path=config.model.path)
        own = replace(own, model=model, seed=config.seed)
        try:
            check_resumable(without_fold(config), without_fold(own))
        except ScienceChangedError as error:
            raise ValueError(f"{pair}, differ in stage {name!r}: {error}") from error


def directions(runs: Sequence[LabRun]) -> list[Direction]:
    """Every arm and direction, with what all runs of an arm have measured.

    Raises:
        ValueError: as `by_arm`, or runs of one arm have some pairs in common and some not.
    """
    found = []
    for arm, members in by_arm(runs).items():
        for index in range(len(members[0].sets)):
            same = _are_same(arm, [run.sets[index] for run in members])
            of_runs = [run.scores[index] for run in members]
            for name in of_runs[0]:
                common = set.intersection(*(set(scores[name]) for scores in of_runs))
                scores = {
                    control: [scores[name][control][METRIC] for scores in of_runs]
                    for control in of_runs[0][name]
                    if control in common
                }
                found.append(Direction(arm, name, scores, same))
    return found


def _are_same(arm: str, sets: Sequence[PairSet]) -> bool:
    """Whether runs were evaluated on the same pairs; if not, they must have none in common."""
    if all(one.lines == sets[0].lines for one in sets):
        return True
    texts = [{line["positive"] for line in one.lines} for one in sets]
    if len(set().union(*texts)) < sum(map(len, texts)):
        raise ValueError(
            f"runs of {arm!r} were evaluated on different pairs of {sets[0].modality}, some of "
            "which they have in common: evaluate them on the same ones, or each on a fold"
        )
    return False
