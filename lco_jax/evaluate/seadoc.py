"""SeaDoc, the paper's benchmark: an English question finds the page that answers it.

Source: LCO-Emb §5; hub dataset LCO-Embedding/SeaDoc (parquet: `corpus` with id and image, `query`
with id and text, `qrels` with query-id, corpus-id and score).
"""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lco_jax.data.records import Item
from lco_jax.data.sources.rows import download_from_hub
from lco_jax.evaluate.tasks import RetrievalTask
from lco_jax.runtime.disks import replace_bytes

NAME = "SeaDoc"
REPO = "LCO-Embedding/SeaDoc"
_COLUMNS = {
    "corpus": ("id", "image"),
    "query": ("id", "text"),
    "qrels": ("query-id", "corpus-id", "score"),
}
_LANGUAGES = ("eng-Latn", "tha-Thai", "vie-Latn", "zsm-Latn", "lao-Laoo")
_BATCH_ROWS = 16
"""Pages that are in memory at a time; each may have several megabytes."""

log = logging.getLogger(__name__)


def download_seadoc() -> Path:
    """A local copy of the hub dataset's three tables (4.6 GB).

    Raises:
        FileNotFoundError: the hub cannot be reached.
    """
    folders = [download_from_hub(REPO, f"{table}/*.parquet") for table in _COLUMNS]
    return folders[0]


def seadoc_task(source: Path, media_folder: str | Path) -> RetrievalTask:
    """The benchmark as a task.

    Args:
        source: a copy of the hub dataset, with the folders `corpus`, `query` and `qrels`.
        media_folder: where pages are written to, each once.

    Raises:
        FileNotFoundError: a table is absent.
        ValueError: a column is absent, an id is doubled or unknown, or a query has not one
            relevant page.
    """
    target = Path(media_folder) / "seadoc"
    pages: dict[str, str] = {}
    for row in _rows(source, "corpus"):
        if row["id"] in pages:
            raise ValueError(f"{source}/corpus has the id {row['id']!r} twice")
        pages[row["id"]] = _write_page(row, target)
    questions = {row["id"]: row["text"] for row in _rows(source, "query")}
    answers = _read_answers(source, questions, pages)
    place = {page: number for number, page in enumerate(pages)}
    log.info("SeaDoc: %d questions, %d pages", len(questions), len(pages))
    return RetrievalTask(
        name=NAME,
        description="An English question finds the page of a Southeast Asian book that answers it.",
        languages=_LANGUAGES,
        queries=tuple(Item(text) for text in questions.values()),
        documents=tuple(Item(images=(path,)) for path in pages.values()),
        licence="apache-2.0",
        relevant=tuple(place[answers[question]] for question in questions),
    )


def _read_answers(source: Path, questions: dict, pages: dict) -> dict[str, str]:
    """The relevant page of every question."""
    answers: dict[str, str] = {}
    for row in _rows(source, "qrels"):
        question, page = row["query-id"], row["corpus-id"]
        if row["score"] <= 0:
            continue
        if question not in questions or page not in pages:
            raise ValueError(
                f"{source}/qrels joins query {question!r} and page {page!r}, of which "
                f"{'query' if question not in questions else 'corpus'} has no such id"
            )
        if question in answers:
            raise ValueError(
                f"{source}/qrels gives query {question!r} several pages; SeaDoc gives each one"
            )
        answers[question] = page
    missing = [question for question in questions if question not in answers]
    if missing:
        raise ValueError(f"{source}/qrels has no page for {len(missing)} queries: {missing[:5]}")
    return answers


def _rows(source: Path, table: str) -> Iterator[dict]:
    files = sorted((source / table).glob("*.parquet"))
    if not files:
        raise FileNotFoundError(
            f"{source / table} has no parquet files; expected a copy of the hub dataset {REPO} "
            f"with the folders {', '.join(_COLUMNS)}"
        )
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                missing = [name for name in _COLUMNS[table] if name not in file.schema_arrow.names]
                if missing:
                    raise ValueError(
                        f"{path} lacks the columns {missing}; it has {file.schema_arrow.names}"
                    )
                for batch in file.iter_batches(_BATCH_ROWS, columns=list(_COLUMNS[table])):
                    yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise ValueError(f"{path} cannot be read as parquet: {error}") from error


def _write_page(row: dict, folder: Path) -> str:
    """The file of a page, written if absent."""
    content = row["image"]["bytes"]
    with Image.open(io.BytesIO(content)) as image:
        suffix = f".{(image.format or 'img').lower()}"
    path = folder / f"{quote(row['id'], safe='')}{suffix}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, content)
    return str(path)
