"""Files in the repository's data folder: JSON Lines of two splits, and archives of media."""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

DATA = Path(__file__).parents[3] / "data"

Described = tuple[dict, bytes]
"""A record with an `id`, and its medium."""


def split_files(folder: Path, name: str) -> dict[str, Path]:
    """The JSON Lines of each split."""
    return {split: folder / f"{name}_{split}.jsonl" for split in ("train", "test")}


def require(files: Iterable[Path]) -> None:
    """Check that all are there.

    Raises:
        FileNotFoundError: the package was installed without the repository's data folder.
    """
    missing = [str(path) for path in files if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{missing} not found; run from a checkout of the repository")


def content_name(files: Iterable[Path]) -> str:
    """Short hash of files, the config of datasets made of them: a changed file is never read from
    an old copy.

    Raises:
        FileNotFoundError: as `require`.
    """
    files = list(files)
    require(files)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]


def read_lines(path: Path) -> Iterator[dict]:
    """The records of a JSON Lines file."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def read_described(path: Path, archive: Path, suffix: str) -> Iterator[Described]:
    """The records of a JSON Lines file with their media, `ID` and a suffix in the archive."""
    return describe(read_lines(path), archive, suffix)


def describe(records: Iterable[dict], archive: Path, suffix: str) -> Iterator[Described]:
    """Records with their media, `ID` and a suffix in the archive."""
    with zipfile.ZipFile(archive) as media:
        for record in records:
            yield record, media.read(f"{record['id']}{suffix}")


def write_described(
    folder: Path, name: str, splits: Mapping[str, list[Described]], archive: str, suffix: str
) -> None:
    """Write the JSON Lines of each split and the archive; the same records give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = split_files(folder, name)
    with zipfile.ZipFile(folder / archive, "w") as media:
        for split, described in splits.items():
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record, _ in described)
            files[split].write_text("".join(lines), encoding="utf-8")
            for record, content in described:
                media.writestr(
                    zipfile.ZipInfo(f"{record['id']}{suffix}"), content
                )  # without a date
