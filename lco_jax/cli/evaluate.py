"""The command line of `launch/evaluate.py`."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, FAILED, program
from lco_jax.cli.model_options import ModelOptions
from lco_jax.cli.parse import parse
from lco_jax.config import MeshConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments(Compilations, ModelOptions):
    """Evaluate a model on offline tasks and those of mteb; finished tasks are not run again."""

    tasks: tuple[str, ...] = ("offline",)
    """`offline` (all tasks on the data of this repository, and on help pages if they are prepared),
    the name of one of them, `SeaDoc`, or the name of an mteb task or benchmark, e.g. `MIEB(lite)`.
    """
    seadoc: Path | None = None
    """Local copy of the hub dataset SeaDoc (default: it is downloaded, 4.6 GB)."""
    output: str | None = None
    """Folder of the results (default: evaluations/ and the model's name)."""
    tokens_per_batch: int = 4096
    """Packed tokens that a device computes at a time."""
    keep_vectors: bool = True
    """Keep all vectors in `vectors/` of the results, so that no item is encoded twice."""
    tpu: bool = False
    """Insist on TPU devices; those of one host, the program runs in one process."""
    mesh: MeshConfig = field(default_factory=MeshConfig)


_EXAMPLES = (
    "--model runs/quickstart/refine --tasks offline",
    "--model runs/quickstart/refine --tasks STS12 'MIEB(lite)' --profile mteb",
)


@program
def main() -> int:
    """Parse, evaluate, show the scores."""
    arguments = parse(_Arguments, examples=_EXAMPLES)
    arguments.announce()
    from lco_jax.runtime import start

    if arguments.tpu:
        start.start_tpu()
    start.refuse_copies()
    start.refuse_several("evaluate.py")
    arguments.keep_compilations()
    from lco_jax.runtime.locks import only_writer

    name = Path(arguments.model).resolve().name
    output = Path(arguments.output or Path("evaluations") / name)
    with only_writer(output):
        return _evaluate(arguments, name, output)


def _evaluate(arguments: _Arguments, name: str, output: Path) -> int:
    """Evaluate with results in a folder; the exit code."""
    from lco_jax.evaluate.published import mieb_lite, side_by_side
    from lco_jax.evaluate.run_offline import run_offline, unread

    offline = _offline(arguments, output / "media")
    chosen = [task for task in offline if "offline" in arguments.tasks or task in arguments.tasks]
    others = [task for task in arguments.tasks if task != "offline" and task not in offline]
    found = _mteb_tasks(others)  # before the model is loaded: a wrong name should fail early
    embedder = arguments.open(
        tokens_per_batch=arguments.tokens_per_batch,
        mesh=arguments.mesh,
        cache=output / "vectors" if arguments.keep_vectors else None,
    )
    wanted = [offline[task] for task in chosen]
    scores = run_offline(embedder, wanted, output / "offline")
    scores = {task: 100 * value for task, value in scores.items()}
    failed: dict[str, str] = {}
    if found:
        from lco_jax.evaluate.mteb_adapter import MtebEncoder, run_tasks

        folder, failed = run_tasks(MtebEncoder(embedder), found, output)
        scores |= mieb_lite().read_results(folder)
    _show(scores, unread(embedder, wanted))
    row = mieb_lite().row(name, scores)
    if row.columns:
        Console().print(side_by_side([row]))
    for task, error in failed.items():
        log.error("%s failed: %s", task, error)
    log.info("results in %s (profile %s)", output, embedder.processor.prompter.profile)
    return FAILED if failed else DONE


def _offline(arguments: _Arguments, media: Path) -> dict[str, Any]:
    """Tasks that need no mteb, by name."""
    from lco_jax.evaluate import seadoc
    from lco_jax.lab import pages
    from lco_jax.lab.offline_tasks import offline_tasks

    tasks = offline_tasks(media)
    if "offline" in arguments.tasks:
        tasks |= pages.page_tasks(media)
    for name in arguments.tasks:
        if name in pages.PAGE_TASKS:  # named, so that it is an error if they are not prepared
            tasks[name] = pages.page_task(name, media)
    if seadoc.NAME in arguments.tasks:
        source = arguments.seadoc or seadoc.download_seadoc()
        tasks[seadoc.NAME] = seadoc.seadoc_task(source, media)
    return tasks


def _mteb_tasks(names: list[str]) -> list:
    if not names:
        return []
    try:
        from lco_jax.evaluate.mteb_adapter import find_tasks

        return find_tasks(names)
    except ImportError as error:
        raise ValueError(
            f"{names} need mteb ({error}); install the extra: pip install -e '.[eval]'"
        ) from error


def _show(scores: dict[str, float], left_out: dict[str, str]) -> None:
    table = Table("task", "main score, %")
    for task, value in scores.items():
        table.add_row(task, f"{value:.2f}")
    Console().print(table)
    for kinds in dict.fromkeys(left_out.values()):
        names = [task for task, own in left_out.items() if own == kinds]
        log.info("%d tasks need a model that reads %s: %s", len(names), kinds, ", ".join(names))
