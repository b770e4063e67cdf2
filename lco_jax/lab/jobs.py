"""Jobs of the lab: stages with its baselines, what is measured behind them, and their controls."""

from dataclasses import replace
from pathlib import Path

from lco_jax.config import RUN_FOLDER, Stages, TrainConfig
from lco_jax.evaluate.hook import retrieval_hook
from lco_jax.lab.conditions import SHUFFLED
from lco_jax.lab.lexical import baselines_of
from lco_jax.lab.media_texts import make_reader
from lco_jax.lab.report import SAMPLES_FILE, write_lab_report
from lco_jax.lab.samples import write_samples
from lco_jax.lab.whole_decoder import keep_whole_decoder
from lco_jax.train.loop import Evaluate, train
from lco_jax.train.stages import MODEL_FOLDER, start_from, train_stages


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
    if shuffled and not _train_shuffled(stages, workdir):
        return False
    finish_job(stages, workdir)
    return True


def finish_job(stages: Stages, workdir: str) -> Path:
    """What follows the stages of a job that asks for samples: what its model answers, what all
    layers of its untouched decoder find, and the report. What is there stays, but for the report.

    Returns:
        The page.
    """
    root = Path(workdir)
    file = root / SAMPLES_FILE
    if stages.samples is not None and not file.exists():
        of = {stage.name: stage.config for stage in stages.stages}[stages.samples.stage]
        model = root / stages.samples.stage / MODEL_FOLDER
        write_samples(stages.samples, model, of.data.media, file, dtype=of.model.dtype)
    names = [stage.name for stage in stages.stages]
    if len(names) > 1:
        last = stages.stages[-1]
        keep_whole_decoder(last.config, str(root / last.name), root / names[-2] / MODEL_FOLDER)
    return Path(write_lab_report(workdir, names))


def _train_shuffled(stages: Stages, workdir: str) -> bool:
    """Train the last stage on shuffled pairs, from the same model; whether it is complete."""
    before, last = stages.stages[-2:]
    config = replace(last.config, data=replace(last.config.data, shuffled_positives=True))
    config = start_from(config, f"{RUN_FOLDER}/../{before.name}/{MODEL_FOLDER}")
    folder = str(Path(workdir) / SHUFFLED)
    return train(config, folder, evaluate=evaluation_of(config, folder)).stopped_by is None
