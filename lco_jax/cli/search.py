"""The command line of `launch/search.py`."""

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, program
from lco_jax.cli.folders import kept_vectors
from lco_jax.cli.model_options import ModelOptions
from lco_jax.cli.parse import parse

if TYPE_CHECKING:
    from lco_jax.data.records import Item

log = logging.getLogger(__name__)

_MEDIA = {"image": "images", "audio": "audios", "video": "videos"}


@dataclass(frozen=True)
class _Arguments(Compilations, ModelOptions):
    """Find in CORPUS what is nearest to a text (QUERY), an image, a recording or a video.

    CORPUS is a folder of images, audio, video and .txt files, a file of items (JSON Lines, CSV,
    parquet), or vectors of embed.py (.parquet, .npy). What was encoded once is kept; another search
    encodes the query only.
    """

    corpus: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS")]
    """What is searched."""
    queries: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[QUERY ...]")
    ] = ()
    """Texts to look for, each by itself."""
    image: str | None = None
    """Image file to look for, in place of texts."""
    audio: str | None = None
    """Audio file to look for."""
    video: str | None = None
    """Video file to look for."""
    top_k: int = 10
    """How many to find for each query."""
    each_kind: bool = False
    """Rank texts, images, audio and videos each by themselves, since scores of different kinds
    compare badly."""
    json: bool = False
    """Write JSON to the standard output, and nothing else."""
    html: Path | None = None
    """Write a page with images and players that needs no other file."""
    html_megabytes: float = 16.0
    """Of audio and video files in that page; what is more is left out."""
    cache: Path = Path("~/.cache/lco_jax/search")
    """Folder in which vectors are kept, by content of items and by model; may be deleted."""


_EXAMPLES = (
    '--model runs/quickstart/refine FOLDER "a red kangaroo" --html found.html',
    "--model runs/quickstart/refine items.jsonl --audio voice.ogg --each-kind",
    '--model runs/quickstart/refine vectors.parquet "a red kangaroo" --json',
)
_BRIEF = (
    "model",
    "image",
    "audio",
    "video",
    "top-k",
    "each-kind",
    "json",
    "html",
    "html-megabytes",
    "cache",
    "checkpoint",
    "truncate-dim",
    "compilation-cache",
)


@program
def main() -> int:
    """Parse, search, show."""
    arguments = parse(_Arguments, examples=_EXAMPLES, brief=_BRIEF)
    queries = _queries(arguments)
    if arguments.top_k < 1:
        raise ValueError(f"--top-k {arguments.top_k} must be at least 1")
    if arguments.html is not None and arguments.html.is_dir():
        raise ValueError(f"--html {arguments.html} is a folder; give the name of a file")
    if arguments.html_megabytes < 0:
        raise ValueError(f"--html-megabytes {arguments.html_megabytes:g} must not be negative")
    arguments.announce()
    from lco_jax.search.corpus import open_corpus

    corpus = open_corpus(arguments.corpus)
    arguments.keep_compilations()
    cache = kept_vectors(arguments.cache)
    from lco_jax.search.find import find
    from lco_jax.search.table import problems, show

    embedder = arguments.open()
    found = find(
        embedder,
        arguments.model,
        corpus,
        queries,
        top_k=arguments.top_k,
        each_kind=arguments.each_kind,
        cache=cache,
    )
    log.info("%d items searched, %d of them encoded now", found.num_items, found.num_encoded)
    for line in problems(found):
        log.warning("%s", line)
    if arguments.html is not None:
        from lco_jax.report.search_page import write_search_page

        write_search_page(found, arguments.html, round(arguments.html_megabytes * 1e6))
        log.info("page: %s", arguments.html.resolve())
    if arguments.json:
        json.dump(found.as_json(), sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        show(found, Console())
    return DONE


def _queries(arguments: _Arguments) -> "list[Item]":
    """The queries as items, of one kind.

    Raises:
        ValueError: no query, an empty one, or several kinds.
        FileNotFoundError: no such file.
    """
    from lco_jax.data.records import Item

    files = {kind: path for kind in _MEDIA if (path := getattr(arguments, kind)) is not None}
    kinds = ["a text"] * bool(arguments.queries) + [f"--{kind}" for kind in files]
    if not kinds:
        raise ValueError(
            'nothing to look for: give a text, as in "a red kangaroo", or a file with --image, '
            "--audio or --video"
        )
    if len(kinds) > 1:
        raise ValueError(f"queries of several kinds ({', '.join(kinds)}): give those of one kind")
    for kind, path in files.items():
        if "://" not in path and not Path(path).is_file():
            raise FileNotFoundError(f"--{kind} {path}: no such file")
        return [Item(**{_MEDIA[kind]: (path,)})]
    if not all(text.strip() for text in arguments.queries):
        raise ValueError("a query is empty; give it words")
    return [Item(text) for text in arguments.queries]
