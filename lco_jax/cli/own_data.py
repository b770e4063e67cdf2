"""Training on one's own files without a config file."""

import dataclasses
from dataclasses import dataclass

from lco_jax.cli.columns import parse_columns
from lco_jax.config import (
    Contrastive,
    DataConfig,
    Evaluation,
    Lora,
    ModelRef,
    OptimizerConfig,
    Stages,
    TableSource,
    TrainConfig,
)

_BATCH_SIZE = 64
_EVALUATE_EVERY = 100


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """What is said of one's own data."""

    data: tuple[str, ...] = ()
    """Train on these files: CSV, parquet, JSON Lines (also .gz), patterns such as 'a/*.csv'. If no
    config is given, this is the recipe of the paper for texts, and `--model` names the model."""
    columns: tuple[str, ...] = ()
    """What is what in them: COLUMN=ROLE, such as query=anchor,answer=positive,wrong=negative or
    photo=anchor.image_path (default: as the columns are called)."""
    media_root: str | None = None
    """Folder of relative media paths in them (default: that of each file)."""
    eval_data: tuple[str, ...] = ()
    """Held-out files with the same columns."""
    model: str | None = None
    """Hub folder, hub id, adapter folder or run folder (short for the config's)."""


def own_recipe(own: OwnData) -> TrainConfig:
    """The recipe of the paper for texts (with media, the one for them), on one's own files: one
    pass over them, and a tenth of it to warm up.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: no model, or columns that do not fit.
    """
    if own.model is None:
        raise ValueError(
            "--data needs the model to train: --model with a hub id such as Qwen/Qwen2.5-Omni-3B, "
            "a hub folder or a run folder (or --config with a file that names it)"
        )
    source = _source(own, own.data)
    has_media = _check(source)
    negatives = sum(role == "negative" for _, role in source.columns)
    config = TrainConfig(
        model=ModelRef(
            own.model,
            trainable=Lora(rank=64, alpha=128 if has_media else 16, dropout=0.05),
            towers=None if has_media else (),
        ),
        data=DataConfig((source,), batch_size=_BATCH_SIZE, num_negatives=max(1, negatives)),
        objective=Contrastive(temperature=0.03),
        optimizer=OptimizerConfig(peak_lr=4e-4, schedule="cosine", warmup_steps=0.1),
        num_epochs=1,
    )
    return _with_evaluation(config, own)


def with_own(config: TrainConfig | Stages, own: OwnData) -> TrainConfig | Stages:
    """A config with one's own data and model in the place of its own.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: the config is of several stages, or columns do not fit.
    """
    given = [name for name in ("data", "eval_data", "model") if getattr(own, name)]
    if (own.columns or own.media_root) and not (own.data or own.eval_data):
        raise ValueError("--columns and --media-root say what is in --data; name its files, too")
    if not given:
        return config
    if isinstance(config, Stages):
        option = f"--{given[0].replace('_', '-')}"
        stages = ", ".join(stage.name for stage in config.stages)
        raise ValueError(
            f"{option} is for a config of one stage, and this one has {stages}; name a config of "
            f"one stage, or {'give --data as well' if given == ['model'] else 'none, and --model'}"
        )
    if own.model:
        model = dataclasses.replace(config.model, path=own.model, revision=None)
        config = dataclasses.replace(config, model=model)
    if own.data:
        source = _source(own, own.data)
        _check(source)
        data = dataclasses.replace(config.data, sources=(source,))
        config = dataclasses.replace(config, data=data)
    return _with_evaluation(config, own)


def _with_evaluation(config: TrainConfig, own: OwnData) -> TrainConfig:
    if not own.eval_data:
        return config
    source = _source(own, own.eval_data)
    _check(source)
    evaluation = Evaluation(source, every_steps=_EVALUATE_EVERY)
    if config.evaluation is not None:
        evaluation = dataclasses.replace(config.evaluation, source=source)
    return dataclasses.replace(config, evaluation=evaluation)


def _source(own: OwnData, paths: tuple[str, ...]) -> TableSource:
    return TableSource(paths, parse_columns(own.columns), own.media_root)


def _check(source: TableSource) -> bool:
    # Reading takes pyarrow, which takes half a second to import.
    from lco_jax.data.sources.open import check_columns

    return check_columns(source)
