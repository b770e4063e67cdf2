"""The command line of `launch/train.py`."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.configs import CONFIGS, find_config, load_config
from lco_jax.cli.exits import DONE, program
from lco_jax.cli.own_data import OwnData, own_recipe, with_own
from lco_jax.cli.parse import parse, typed
from lco_jax.cli.start import Start
from lco_jax.config import Stage, Stages, TrainConfig
from lco_jax.data.sources.files import stem_of

log = logging.getLogger(__name__)

_FIGURES = ("recall@1", "recall@10", "mrr")
"""Of an evaluation, what is told of a run that goes on without any."""
_DEFAULT = CONFIGS / "quickstart.py"
_DEFAULT_TPU = CONFIGS / "lco_omni_7b_text.py"


@dataclass(frozen=True)
class _Front(Start, Compilations, OwnData):
    config: Path | None = None
    """Python file with `get_config()`, or the name of a shipped one (default: the quickstart;
    with --tpu: lco_omni_7b_text)."""
    workdir: str | None = None
    """Run folder, local or gs:// (default: runs/ and the name of the config or the data)."""
    dry_run: bool = False
    """Compile the step for the declared mesh on simulated devices and print what it takes."""
    num_devices: int | None = None
    """With --dry-run: how many devices to simulate (default: the product of the mesh)."""


@dataclass(frozen=True)
class _StagesFront(_Front):
    samples: bool = True
    """Write the samples of responses that the config asks for; one process does."""


@dataclass(frozen=True)
class _Arguments(_Front):
    """Train an embedding model; every setting of the config is an option below. In a config of
    several stages, options begin with the name of the stage."""

    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = tyro.MISSING


_EXAMPLES = (
    "--data my.csv --columns query=anchor,answer=positive --model Qwen/Qwen2.5-Omni-3B",
    "--config lco_omni_7b_text --tpu --workdir gs://BUCKET/run",
)
_BRIEF = (
    "data",
    "columns",
    "media-root",
    "eval-data",
    "model",
    "config",
    "workdir",
    "tpu",
    "dry-run",
    "compilation-cache",
    "data.batch-size",
    "num-steps",
    "optimizer.peak-lr",
    "evaluation.every-steps",
    "checkpoint.every-steps",
    "memory.remat",
)


@program
def main() -> int:
    """Parse, run one stage or several, report."""
    arguments, config, workdir = read_command()
    if arguments.dry_run:
        return _dry_run(config, arguments.num_devices)
    arguments.join()
    arguments.keep_compilations()

    import jax

    from lco_jax.lab.jobs import evaluation_of, finish_job
    from lco_jax.runtime import processes
    from lco_jax.train.loop import train
    from lco_jax.train.stages import train_stages

    if isinstance(config, Stages):
        _check_samples(config)
        results = train_stages(config, workdir, make_evaluate=evaluation_of)
        ended = [(stage.config, stage.workdir, stage.result) for stage in results]
        code = _report(ended)
        if code == DONE and config.samples is not None and jax.process_index() == 0:
            log.info("report of all stages: %s", finish_job(config, workdir))
        return code
    else:
        with processes.all_or_none("evaluation pairs"):
            evaluate = evaluation_of(config, workdir)
        result = train(config, workdir, evaluate=evaluate)
        ended = [(config, workdir, result)]
    return _report(ended)


def read_command(
    args: Sequence[str] | None = None,
) -> tuple[_Front, TrainConfig | Stages, str]:
    """What a command line (None: the program's own) asks for: its options, the config that they
    make, and the run folder.

    Raises:
        FileNotFoundError: a config or a file of data is absent.
        ValueError: the config is none, or settings do not fit each other.
        SystemExit: there is no such option, or help was asked for.
    """
    front, _ = tyro.cli(_Front, args=typed(args), return_unknown_args=True, add_help=False)
    if front.config is None and front.data:
        name, config = stem_of(front.data[0]), own_recipe(front)
    else:
        path = find_config(front.config or (_DEFAULT_TPU if front.tpu else _DEFAULT))
        name, config = path.stem, with_own(load_config(path), front)
    arguments, config = _parse(front.config, config, args)
    return arguments, config, arguments.workdir or str(Path("runs") / name)


def _report(ended: list[tuple[TrainConfig, str, Any]]) -> int:
    """Write what the stages that have just ended ask for (result None: they ended before); the
    exit code.
    """
    import jax

    from lco_jax.objectives.traits import traits_of
    from lco_jax.report.run_report import write_report

    for config, workdir, result in ended:
        if result is None:
            continue
        if result.best is not None and jax.process_index() == 0:
            log.info("%s", _best(config, workdir, result))
        if result.stopped_by is not None:
            log.info("saved after step %d of %d; run again to go on", result.step, result.num_steps)
            return 128 + result.stopped_by
        wanted = config.logging.report and traits_of(config.objective).has_report
        if wanted and jax.process_index() == 0:
            log.info("report: %s", write_report(workdir))
    return DONE


def _best(config: TrainConfig, workdir: str, result: Any) -> str:
    """Which checkpoint a complete run gives as its model."""
    from lco_jax.train.metrics import read_evaluations

    step, value = result.best
    found = f"last: step {step}, not evaluated"
    known = read_evaluations(workdir).get(step, {})
    before = {name: known[name] for name in _FIGURES if name in known}
    if value is not None:
        found = f"best: step {step}, {config.evaluation.metric} {value:.3f}"
    elif before:  # this start has no evaluation, and the run was evaluated before
        figures = ", ".join(f"{name} {x:.3f}" for name, x in before.items())
        found = f"last: step {step}, evaluated before: {figures}"
    return f"{found}; embed with --model {workdir}"


def _check_samples(config: Stages) -> None:
    """Refuse before training what would fail behind it."""
    import jax

    if config.samples is not None and jax.process_count() > 1:
        raise ValueError(
            f"samples are written by one process, and this run has {jax.process_count()}: add "
            "--no-samples, and when the stages are complete start the same command without it on "
            "one host, which then writes them"
        )


def _parse(
    path: Path | None, config: TrainConfig | Stages, args: Sequence[str] | None
) -> tuple[_Front, TrainConfig | Stages]:
    """The command line on top of a config: one option for every setting of each stage."""
    options = {"examples": _EXAMPLES, "brief": _BRIEF, "args": args}
    if isinstance(config, TrainConfig):
        arguments = parse(_Arguments, default=_Arguments(path, run=config), **options)
        return arguments, arguments.run
    stages = {stage.name: stage.config for stage in config.stages}
    cls = dataclasses.make_dataclass(
        "_StagesArguments",
        [(name, TrainConfig, dataclasses.field(default=stages[name])) for name in stages],
        bases=(_StagesFront,),
        frozen=True,
        namespace={"__doc__": _Arguments.__doc__},
    )
    arguments = parse(cls, default=cls(path), **options)
    chosen = tuple(Stage(name, getattr(arguments, name)) for name in stages)
    return arguments, Stages(chosen, config.samples if arguments.samples else None, config.soup)


def _dry_run(config: TrainConfig | Stages, num_devices: int | None) -> int:
    from lco_jax.plan.dry_run import dry_run, simulate_devices

    stages = config.sized() if isinstance(config, Stages) else (Stage("run", config),)
    simulate_devices(stages[0].config.mesh, num_devices)
    for stage in stages:
        if isinstance(config, Stages):
            print(f"stage {stage.name}")
        print(dry_run(stage.config))
    return DONE
