"""Recipes of the lab on other parts of its data: while choices are made, and in a fold."""

from collections.abc import Callable
from dataclasses import replace

from lco_jax.config import Source, Stage, Stages, TfdsSource, TrainConfig

_WITH_DEVELOPMENT = ("emoji", "spoken", "wordnet")
_WHILE_CHOOSING = {"train": "fit", "test": "dev"}


def for_choices(stages: Stages) -> Stages:
    """The same recipe where choices are made: it trains on `fit` in place of `train`, and is
    measured on `dev` in place of `test`. Other sources stay (of clip art, some images may have the
    name of an emoji of `dev`).
    """

    def chosen(source: Source) -> Source:
        if not isinstance(source, TfdsSource):
            return source
        if source.name.partition("/")[0] not in _WITH_DEVELOPMENT:
            return source
        return replace(source, split=_WHILE_CHOOSING.get(source.split, source.split))

    return _with_sources(stages, chosen)


def in_fold(stages: Stages, fold: int) -> Stages:
    """The same recipe with the spoken prompts held apart as in a fold.

    Args:
        fold: from 1 to `splits.NUM_FOLDS`.
    """

    def folded(source: Source) -> Source:
        if isinstance(source, TfdsSource) and source.name == "spoken":
            return replace(source, name=f"spoken/fold{fold}")
        return source

    return _with_sources(stages, folded)


def without_fold(config: TrainConfig) -> TrainConfig:
    """The same run on the prompts' own `train` and `test`: two runs of other folds are alike so."""

    def unfolded(source: Source) -> Source:
        if isinstance(source, TfdsSource) and source.name.startswith("spoken/"):
            return replace(source, name="spoken")
        return source

    return _changed(config, unfolded)


def _with_sources(stages: Stages, change: Callable[[Source], Source]) -> Stages:
    samples = stages.samples and replace(
        stages.samples, sources=tuple(map(change, stages.samples.sources))
    )
    parts = tuple(Stage(stage.name, _changed(stage.config, change)) for stage in stages.stages)
    return Stages(parts, samples)


def _changed(config: TrainConfig, change: Callable[[Source], Source]) -> TrainConfig:
    data = replace(config.data, sources=tuple(map(change, config.data.sources)))
    evaluation = config.evaluation and replace(
        config.evaluation,
        source=change(config.evaluation.source),
        others=tuple(map(change, config.evaluation.others)),
    )
    return replace(config, data=data, evaluation=evaluation)
