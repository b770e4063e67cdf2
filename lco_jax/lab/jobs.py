"""Jobs of the lab: stages with its baselines, what is measured behind them, and their controls."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lco_jax.config import Stages, TrainConfig
from lco_jax.evaluate.hook import retrieval_hook
from lco_jax.lab.behind import keep_lacking_baselines, keep_whole_decoder
from lco_jax.lab.conditions import SHUFFLED
from lco_jax.lab.lexical import baselines_of
from lco_jax.lab.media_texts import make_reader
from lco_jax.lab.report import SAMPLES_FILE, write_lab_report
from lco_jax.lab.samples import write_samples
from lco_jax.train.loop import Evaluate, train
from lco_jax.train.manifest import read_manifest
from lco_jax.train.stages import MODEL_FOLDER, train_stages


def evaluation_of(config: TrainConfig, workdir: str) -> Evaluate | None:
    """The evaluation of a run, from its config and folder, with the lab's baselines."""
    baselines = baselines_of(config.data.media)
    return retrieval_hook(config, workdir, baselines=baselines, make_reader=make_reader)


def run_job(stages: Stages, workdir: str, *, shuffled: bool) -> bool:
    """Train the stages, the last of them also on shuffled pairs if asked to, and write the report;
    what is complete stays.

    Returns:
        Whether all of it is complete: a signal stops a job, which goes on when it is called again.
    """
    for result in train_stages(stages, workdir, make_evaluate=evaluation_of):
        if result.result is not None and result.result.stopped_by is not None:
            return False
    if shuffled and not train_shuffled(workdir, stages.stages[-1].name):
        return False
    finish_job(stages, workdir)
    return True


def train_shuffled(workdir: str, last: str) -> bool:
    """Train the last stage of a job that has ended once more, from the same model and on shuffled
    pairs; whether it is complete."""
    config = read_manifest(str(Path(workdir) / last)).config
    config = replace(config, data=replace(config.data, shuffled_positives=True))
    folder = str(Path(workdir) / SHUFFLED)
    return train(config, folder, evaluate=evaluation_of(config, folder)).stopped_by is None


def finish_job(stages: Stages, workdir: str) -> Path:
    """What follows the stages of a job: the samples that it asks for, and what `measure_job` does.

    Returns:
        The page.
    """
    root = Path(workdir)
    file = root / SAMPLES_FILE
    if stages.samples is not None and not file.exists():
        of = {stage.name: stage.config for stage in stages.stages}[stages.samples.stage]
        model = root / stages.samples.stage / MODEL_FOLDER
        write_samples(stages.samples, model, of.data.media, file, dtype=of.model.dtype)
    return measure_job(workdir, [stage.name for stage in stages.stages])


def measure_job(workdir: str, stages: Sequence[str]) -> Path:
    """Measure what the report of a job compares with and is not there yet, and write the report.

    Args:
        stages: their names, in order.

    Returns:
        The page.
    """
    root = Path(workdir)
    if len(stages) > 1:
        before, last = stages[-2:]
        config = read_manifest(str(root / last)).config
        keep_lacking_baselines(config, root / last, root / before / MODEL_FOLDER)
        keep_whole_decoder(config, root / last, root / before / MODEL_FOLDER)
    return Path(write_lab_report(workdir, stages))
