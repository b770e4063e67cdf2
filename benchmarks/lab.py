"""The lab's figures, all by one command; run from the root of the repository.

`python -m benchmarks.lab` trains the quickstart once for each fold of the spoken prompts, each with
a seed of its own, and each time also its last stage on shuffled pairs; then it writes
`docs/lab/tables.md`, `docs/lab/figures.json` and the report of the first run, puts the tables
into the pages that have a place for them, and draws `docs/quickstart.png`. What is complete is not
trained again, and a stopped run resumes. Jobs of `configs/lab_full.py` and `lab_full_lora.py` among
the runs are read, too, if they are complete. `--tables-only` trains nothing.
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from benchmarks.quickstart_picture import draw_run
from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, program
from lco_jax.config import Stage, Stages
from lco_jax.lab.corpora.splits import NUM_FOLDS
from lco_jax.lab.held_apart import in_fold
from lco_jax.lab.pages_with_tables import replace_table
from lco_jax.lab.recipes import quickstart
from lco_jax.lab.report import write_lab_report

log = logging.getLogger(__name__)

_SPEAKS = "speak"
_STAGES = ("align", _SPEAKS, "refine")
"""Of all recipes of the lab, in order."""
_QUICK = "quick"
_PAGES = (Path("README.md"), Path("docs/quickstart.md"), Path("docs/lab/README.md"))
_PICTURE = Path("docs/quickstart.png")
_TITLE = "# The lab in figures\n\nMade by `python -m benchmarks.lab`.\n\n"
_EXPLAINED = (
    "Intervals are 95 % bootstraps over seeds and queries; where all seeds have the same queries, "
    "these are drawn once for all of them. Those of a single seed say nothing of other seeds, and "
    "those of a few are too narrow. The strongest explanation is chosen on the very queries that "
    "it is compared on, which favours it; where it is one that stands above, it is counted once."
)


@dataclass(frozen=True)
class _Arguments(Compilations):
    """Train what is missing, measure, write the tables."""

    output: Path = Path("docs/lab")
    runs: Path = Path("runs/lab")
    """Folder of all runs, each in a folder of its own."""
    folds: int = NUM_FOLDS
    """How many runs of the quickstart: fold i of the spoken prompts has the seed 41 + i."""
    full: tuple[Path, ...] = ()
    """Folders of other jobs of the lab that have ended (default: those among the runs)."""
    shuffle_all: bool = False
    """Train the last stage of those on shuffled pairs, too: as long again as that stage took."""
    tables_only: bool = False
    """Train nothing; read the runs that are complete."""
    max_steps: int | None = None
    """Of every stage: to try the command out."""

    def __post_init__(self):
        if not 1 <= self.folds <= NUM_FOLDS:
            raise ValueError(
                f"--folds {self.folds}: there are {NUM_FOLDS}; give a number up to that"
            )


@program
def main() -> int:
    """Train, read, write; the exit code."""
    arguments = tyro.cli(_Arguments, description=__doc__)
    arguments.keep_compilations()
    folders = [arguments.runs / f"{_QUICK}{fold}" for fold in range(1, arguments.folds + 1)]
    full = arguments.full or tuple(
        sorted(folder.parent for folder in arguments.runs.glob(f"*/{_SPEAKS}"))
    )
    if not arguments.tables_only:
        from lco_jax.lab.jobs import measure_job, run_job, train_shuffled

        for fold, folder in enumerate(folders, start=1):
            log.info("run %d of %d: %s", fold, len(folders), folder)
            if not run_job(_recipe(fold, arguments.max_steps), str(folder), shuffled=True):
                log.info("stopped; run the command again to go on")
                return 1
        for folder in filter(_is_complete, full):
            stages = _stages_in(folder)
            if arguments.shuffle_all and not train_shuffled(str(folder), stages[-1]):
                return 1
            measure_job(str(folder), stages)
    complete = [folder for folder in (*folders, *full) if _is_complete(folder)]
    for folder in (*folders, *full):
        if folder not in complete:
            log.warning("%s is not complete: left out", folder)
    for folder in complete[:1]:  # the report that is shown has the words of this revision
        write_lab_report(str(folder), _stages_in(folder))
    _write(complete, arguments.output)
    return DONE


def _recipe(fold: int, max_steps: int | None) -> Stages:
    """The quickstart in a fold, with a seed of its own."""
    stages = in_fold(quickstart(), fold)
    parts = []
    for stage in stages.stages:
        config = replace(stage.config, seed=41 + fold)
        if max_steps is not None:
            config = replace(config, num_steps=min(max_steps, config.num_steps))
        parts.append(Stage(stage.name, config))
    return Stages(tuple(parts), stages.samples)


def _draw(run: Path) -> None:
    """What texts find in the first run, for the README."""
    try:
        draw_run(run, _PICTURE)
    except ImportError as error:
        log.warning("%s is as it was: %s; pip install -e '.[documents]'", _PICTURE, error)


def _is_complete(folder: Path) -> bool:
    return (folder / "report" / "report.json").exists()


def _stages_in(folder: Path) -> list[str]:
    return [name for name in _STAGES if (folder / name).is_dir()]


def _write(folders: Sequence[Path], output: Path) -> None:
    """Read the runs, write tables, numbers, the first report, and the tables within pages."""
    from lco_jax.lab import tables
    from lco_jax.lab.seeds import directions, read_run

    if not folders:
        raise FileNotFoundError(
            "there is no complete run to make tables of; leave out --tables-only"
        )
    runs = [read_run(str(folder), _stages_in(folder)) for folder in folders]
    found = directions(runs)
    log.info("measured %d arms and directions of %d runs", len(found), len(runs))
    parts = {
        "Retrieval on held-out pairs (MRR)": tables.retrieval_table(found),
        "Controls (MRR)": tables.controls_table(found),
        "What the text-only stage adds to each explanation (MRR)": (
            f"{_EXPLAINED}\n\n{tables.counts(found)}\n{tables.changes_table(found)}"
        ),
        "Anisotropy (mean cosine)": tables.anisotropy_table(runs),
        "Stages": tables.stages_table(runs),
    }
    body = "\n".join(f"## {title}\n\n{table}" for title, table in parts.items())
    output.mkdir(parents=True, exist_ok=True)
    (output / "tables.md").write_text(_TITLE + body)
    numbers = json.dumps(tables.as_numbers(found, runs), indent=1, ensure_ascii=False)
    (output / "figures.json").write_text(numbers + "\n")
    for name, file in (("index.html", "report.html"), ("report.json", "report.json")):
        text = (folders[0] / "report" / name).read_text()
        (output / file).write_text(_without_places(text))
    quick = [one for one in found if one.arm == runs[0].arm]
    for_pages = {
        "quickstart": tables.small_table(quick),
        "controls of the quickstart": tables.controls_table(quick),
        "changes in the quickstart": tables.summary_table(quick),
        "all arms": tables.retrieval_table(found),
        "changes in all arms": tables.summary_table(found),
    }
    if _PICTURE.exists():
        _draw(folders[0] / _STAGES[-1])
    for page in filter(Path.exists, _PAGES):
        written = [name for name, table in for_pages.items() if replace_table(page, name, table)]
        log.info("%s has the tables of %s", page, ", ".join(written) or "nothing")


def _without_places(text: str) -> str:
    """Without where things lie on this machine."""
    return text.replace(str(Path.cwd()), ".").replace(str(Path.home()), "~")


if __name__ == "__main__":
    sys.exit(main())
