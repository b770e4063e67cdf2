"""Which files the hosts of a run read and write."""

from pathlib import Path

from lco_jax.config import Source, TfdsSource, TrainConfig
from lco_jax.data.sources.datasets import CACHE
from lco_jax.plan.stand_in import name_of


def reads(config: TrainConfig, model: str | None = None) -> tuple[str, ...]:
    """What every host reads, each for its own examples and shards of weights.

    Args:
        model: what an earlier stage leaves, if the run starts from that.
    """
    ref, found = config.model, []
    if model is not None:
        found.append(f"model: {model}, with the tokenizer of {ref.path}")
    elif Path(ref.path).is_dir():
        found.append(f"model: {ref.path}")
    else:
        found.append(f"model: {ref.path}, from the same local folder or downloaded by each host")
    found += [_describe(source) for source in config.data.sources]
    if config.evaluation is not None:
        held_out = (config.evaluation.source, *config.evaluation.others)
        found += [f"held out, {_describe(source)}" for source in held_out]
    if config.memory.feature_cache:
        found.append(f"features of media: {config.memory.feature_cache}")
    return tuple(found)


def _describe(source: Source) -> str:
    if isinstance(source, TfdsSource):
        return f"{name_of(source)}: {source.data_dir or CACHE / 'tfds'}/{source.name}"
    return f"examples: {name_of(source)}"


def writes(config: TrainConfig, workdir: str) -> tuple[str, ...]:
    """What is written of a run, and by whom."""
    every = config.checkpoint.every_steps
    names = ["config.json", "metrics.jsonl"]
    names += ["tensorboard/"] * config.logging.tensorboard
    names += ["evaluations/"] * (config.evaluation is not None)
    return (
        f"all hosts: {workdir}/checkpoints/, after every {every} steps, at the end, and when "
        "they are asked to stop",
        f"host 0: {', '.join(names)} and the report, in {workdir}",
    )


def notes(workdir: str, num_hosts: int) -> tuple[str, ...]:
    """What to see to before the run is submitted."""
    if "://" in workdir or num_hosts == 1:
        return ()
    return (
        f"{workdir} is in the file system: all {num_hosts} hosts must see one folder there (a "
        "mounted bucket); checkpoints on disks of their own cannot be read again. gs:// needs none",
    )


def found(workdir: str, is_run: bool) -> tuple[str, ...]:
    """What a run folder of this machine holds."""
    if not is_run:
        return ()
    steps = [int(path.name) for path in Path(workdir, "checkpoints").glob("[0-9]*")]
    if not steps:
        return (f"{workdir} holds this run without a checkpoint: it starts from step 0",)
    return (f"{workdir} holds this run: it goes on after step {max(steps)}",)
