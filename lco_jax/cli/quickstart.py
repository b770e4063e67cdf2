"""How `launch/quickstart.sh` ends: a search with the new model, and what to do next."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.text import Text

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, program
from lco_jax.cli.folders import kept_vectors

log = logging.getLogger(__name__)

_QUERIES = ("please enter your password", "a man with a beard", "a feeling of great happiness")
_TOP_K = 5
_PAGE_BYTES = 16_000_000


@dataclass(frozen=True)
class _Arguments(Compilations):
    """Search held-out images, recordings and texts with the model of a finished run."""

    workdir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="WORKDIR")]
    """Run folder, or folder of stages."""
    cache: Path = Path("~/.cache/lco_jax/search")
    """Folder in which vectors are kept."""


@program
def main() -> int:
    """Search, write the page, say what to open and what to try."""
    arguments = tyro.cli(_Arguments)
    model = _last_run(arguments.workdir)
    if model is None:
        log.info("no finished run in %s: nothing to search with", arguments.workdir)
        return DONE
    arguments.keep_compilations()
    from lco_jax.data.records import Item
    from lco_jax.embed.embedder import Embedder
    from lco_jax.lab.held_out import write_held_out
    from lco_jax.report.search_page import write_search_page
    from lco_jax.runtime.locks import only_writer_of
    from lco_jax.search.corpus import open_corpus
    from lco_jax.search.find import find
    from lco_jax.search.table import problems

    with only_writer_of(arguments.workdir / "search"):
        embedder = Embedder(model)
        items = write_held_out(arguments.workdir / "search", embedder.modalities)
        page = arguments.workdir / "search.html"
        log.info("searching held-out data for: %s", "; ".join(_QUERIES))
        found = find(
            embedder,
            str(model),
            open_corpus(str(items)),
            [Item(query) for query in _QUERIES],
            top_k=_TOP_K,
            each_kind=True,
            cache=kept_vectors(arguments.cache),
        )
        for line in problems(found):
            log.info("%s", line)
        write_search_page(found, page, _PAGE_BYTES)
        _say_what_is_next(arguments.workdir, model, items, page)
    return DONE


def _last_run(workdir: Path) -> Path | None:
    """The run in a folder: its own, or that of the stage that no other one starts from.

    Runs on shuffled pairs are controls, and no model to use.
    """
    from lco_jax.config import RUN_FOLDER
    from lco_jax.train.manifest import base_folder, is_run_folder, read_manifest

    folders = [workdir, *(folder for folder in workdir.glob("*") if folder.is_dir())]
    runs = [
        folder
        for folder in folders
        if any(folder.glob("checkpoints/*")) and is_run_folder(str(folder))
    ]
    configs = {folder: read_manifest(str(folder)).config for folder in runs}
    bases = [
        base_folder(config.model, str(folder)).resolve()
        for folder, config in configs.items()
        if config.model.path.startswith(RUN_FOLDER)
    ]
    last = [
        run
        for run in runs
        if not configs[run].data.shuffled_positives
        and not any(base.is_relative_to(run.resolve()) for base in bases)
    ]
    return max(last, key=lambda folder: (folder / "config.json").stat().st_mtime, default=None)


def _say_what_is_next(workdir: Path, model: Path, items: Path, page: Path) -> None:
    console = Console(soft_wrap=True, highlight=False)
    command = Path(sys.executable).with_name("lco")
    if command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    reports = [workdir / "report" / "index.html", model / "report" / "index.html"]
    report = next((file for file in reports if file.exists()), None)
    to_open = [] if report is None else [(report, "what training has changed, with intervals")]
    to_open.append((page, "what the model finds in held-out data"))
    width = max(len(str(file)) for file, _ in to_open)
    console.print("\n[bold]Open[/bold]")
    for file, what in to_open:
        console.print(Text(f"  {file!s:{width}}  {what}"))
    console.print("\n[bold]Try next[/bold]")
    for name, rest in (
        ("search", f'{items} "words of your own"'),
        ("search", 'FOLDER "a sunny beach" --html found.html'),
        ("embed", f"--input {items} --output vectors.parquet"),
    ):
        console.print(Text(f"  {command} {name} --model {model} {rest}"))


if __name__ == "__main__":
    sys.exit(main())
