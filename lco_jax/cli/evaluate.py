"""The command line of `launch/evaluate.py`."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, FAILED, program
from lco_jax.cli.model_options import ModelOptions
from lco_jax.cli.parse import parse
from lco_jax.cli.show import show
from lco_jax.config import MeshConfig
from lco_jax.evaluate.results import COMPARATOR

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments(Compilations, ModelOptions):
    """Evaluate a model on offline tasks and those of mteb; finished tasks are not run again."""

    model: str = field(kw_only=True)
    """Hub folder, hub id, adapter folder, run folder, or `mteb:NAME`: a model of mteb's registry,
    which mteb's own code runs."""
    tasks: tuple[str, ...] = ("offline",)
    """`offline` (all tasks on the data of this repository, and on help pages if they are prepared),
    the name of one of them, `SeaDoc`, or the name of an mteb task or benchmark, e.g. `MIEB(lite)`.
    """
    seadoc: Path | None = None
    """Local copy of the hub dataset SeaDoc (default: it is downloaded, 4.6 GB)."""
    output: str | None = None
    """Folder of the results (default: evaluations/ and the model's name). Models with the same
    folder are shown side by side."""
    tokens_per_batch: int = 4096
    """Packed tokens that a device computes at a time."""
    batch_size: int | None = None
    """Inputs that a model of mteb takes at a time (default: 32)."""
    keep_vectors: bool = True
    """Keep all vectors in `vectors/` of the results, so that no item is encoded twice."""
    tpu: bool = False
    """Insist on TPU devices; those of one host, the program runs in one process."""
    mesh: MeshConfig = field(default_factory=MeshConfig)

    @property
    def is_comparator(self) -> bool:
        """Whether mteb's code runs the model."""
        return self.model.startswith(COMPARATOR)

    def announce(self) -> None:
        """Say that the model is read, and refuse what does not go with it.

        Raises:
            FileNotFoundError: its name can be none of a model.
            ValueError: an option is of models of the other kind, or has no sense.
        """
        from lco_jax.embed.arguments import check_positive

        check_positive("batch_size", self.batch_size)
        if not self.is_comparator:
            if self.batch_size is not None:
                raise ValueError(
                    f"--batch-size is of models that mteb runs (--model {COMPARATOR}NAME); of "
                    "this one --tokens-per-batch bounds what a device computes at a time"
                )
            super().announce()
            return
        if given := [name for name in _given(self) if name not in _OF_COMPARATORS]:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(
                f"{options}: this is for models that this program runs itself; leave it out with "
                f"--model {self.model}, which mteb's code runs"
            )
        log.info("reading the model %s", self.model)


_OF_COMPARATORS = ("model", "tasks", "seadoc", "output", "batch_size")
"""The options that say something of a model that mteb runs."""


def _given(arguments: _Arguments) -> list[str]:
    """The options that have another value than their default."""
    defaults = {
        one.name: one.default if one.default_factory is MISSING else one.default_factory()
        for one in fields(arguments)
    }
    return [name for name, default in defaults.items() if getattr(arguments, name) != default]


_EXAMPLES = (
    "--model runs/quickstart/refine --tasks offline",
    "--model runs/quickstart/refine --tasks STS12 'MIEB(lite)' --profile mteb",
    "--model mteb:mongodb/voyage-multimodal-3 --tasks offline",
)


@program
def main() -> int:
    """Parse, evaluate, show the scores."""
    arguments = parse(_Arguments, examples=_EXAMPLES)
    arguments.announce()
    from lco_jax.runtime import start

    if arguments.is_comparator:
        start.use_cpu()
    if arguments.tpu:
        start.start_tpu()
    start.refuse_copies()
    start.refuse_several("evaluate.py")
    arguments.keep_compilations()
    from lco_jax.runtime.locks import only_writer

    if arguments.is_comparator:
        from lco_jax.evaluate.comparators import find_comparator

        meta = find_comparator(arguments.model)
        output = Path(arguments.output or Path("evaluations") / meta.model_name_as_path())
        open_subject = partial(_open_comparator, arguments, meta)
    else:
        name = Path(arguments.model).resolve().name
        output = Path(arguments.output or Path("evaluations") / name)
        open_subject = partial(_open_own, arguments, output)
    with only_writer(output):
        return _evaluate(arguments, open_subject, output)


@dataclass(frozen=True)
class _Subject:
    """A model to evaluate, which this program or mteb runs."""

    name: str
    """What its results are filed under, with the revision."""
    revision: str
    about: str
    reader: Any
    """Who reads the items of offline tasks."""
    modalities: Sequence[str]
    """What it reads of mteb's tasks."""
    run_offline: Callable[[Sequence[Any], Path], dict[str, float]]
    run_tasks: Callable[[Sequence[Any], Path], dict[str, str]]


def _open_own(arguments: _Arguments, output: Path, _: Sequence[str]) -> _Subject:
    from lco_jax.evaluate.mteb_adapter import MtebEncoder, run_tasks
    from lco_jax.evaluate.run_offline import run_offline

    embedder = arguments.open(
        tokens_per_batch=arguments.tokens_per_batch,
        mesh=arguments.mesh,
        cache=output / "vectors" if arguments.keep_vectors else None,
    )
    encoder = MtebEncoder(embedder)
    return _Subject(
        name=encoder.name,
        revision=encoder.revision,
        about=f"profile {embedder.processor.prompter.profile}",
        reader=embedder,
        modalities=embedder.modalities,
        run_offline=partial(run_offline, embedder),
        run_tasks=partial(run_tasks, encoder),
    )


def _open_comparator(arguments: _Arguments, meta: Any, offline: Sequence[str]) -> _Subject:
    from lco_jax.evaluate.comparators import BATCH_SIZE, Comparator, check_offline
    from lco_jax.evaluate.mteb_adapter import run_tasks

    if offline:
        check_offline(meta)
    comparator = Comparator(meta, batch_size=arguments.batch_size or BATCH_SIZE)
    return _Subject(
        name=comparator.meta.name,
        revision=comparator.meta.revision,
        about=comparator.about,
        reader=comparator,
        modalities=comparator.meta.modalities,
        run_offline=comparator.run_offline,
        run_tasks=partial(run_tasks, comparator.encoder, batch_size=comparator.batch_size),
    )


def _evaluate(
    arguments: _Arguments, open_subject: Callable[[Sequence[str]], _Subject], output: Path
) -> int:
    """Evaluate with results in a folder; the exit code.

    Args:
        open_subject: opens the model, for offline tasks of these names and any of mteb.
    """
    from lco_jax.evaluate import published_tables, results
    from lco_jax.evaluate.run_offline import unread

    offline = _offline(arguments, output / "media")
    chosen = [task for task in offline if "offline" in arguments.tasks or task in arguments.tasks]
    others = [task for task in arguments.tasks if task != "offline" and task not in offline]
    found = _mteb_tasks(others)  # before the model is loaded: a wrong name should fail early
    subject = open_subject(chosen)
    wanted = [offline[task] for task in chosen]
    left_out = unread(subject.reader, wanted)
    filed = (subject.name, subject.revision)
    scores = subject.run_offline(wanted, results.offline_folder(output, *filed))
    failed: dict[str, str] = {}
    if found:
        from lco_jax.evaluate.mteb_adapter import unread_tasks

        unread_found = unread_tasks(subject.modalities, found)
        left_out |= unread_found
        readable = [task for task in found if task.metadata.name not in unread_found]
        failed = subject.run_tasks(readable, output)
    own = results.read_results(output, *filed, offline=scores)
    beside = results.read_others(output, own)
    show(results.side_by_side(own, beside))
    _say_left_out(left_out)
    rows = [row for row in (each.row() for each in (own, *beside)) if row.columns]
    if rows:
        show(published_tables.side_by_side(rows), names=2)
    for task, error in failed.items():
        log.error("%s failed: %s", task, error)
    log.info("results in %s (%s)", output, subject.about)
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


def _say_left_out(left_out: Mapping[str, str]) -> None:
    """The tasks that were left out, together by what they need."""
    for kinds in dict.fromkeys(left_out.values()):
        names = [task for task, own in left_out.items() if own == kinds]
        log.info(
            "%d tasks need %s, which is not read here: %s", len(names), kinds, ", ".join(names)
        )
