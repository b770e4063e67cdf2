"""The command line of `launch/embed.py`."""

import logging
from dataclasses import dataclass, field

from lco_jax.cli.columns import parse_columns
from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, FAILED, program
from lco_jax.cli.model_options import ModelOptions
from lco_jax.cli.parse import parse
from lco_jax.cli.start import Start
from lco_jax.config import MeshConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments(Start, Compilations, ModelOptions):
    """Embed a folder, or the rows of files: of JSON Lines one item (a string, or an object with
    `text`, `image_path`, `video_path`, `audio_path`) a line; of CSV and parquet one a row."""

    input: tuple[str, ...]
    """Files of JSON Lines (also .gz), CSV or parquet; patterns such as 'a/*.csv'; or a folder, all
    of whose media and .txt files are embedded."""
    output: str
    """`.npy`, or `.parquet` with ids, texts and paths; a stopped job resumes where it was."""
    columns: tuple[str, ...] = ()
    """What is what in a table: COLUMN=ROLE, such as body=text,photo=image_path,key=id (default: as
    the columns are called)."""
    media_root: str | None = None
    """Folder of relative media paths in a table (default: that of the file)."""
    tokens_per_batch: int = 4096
    """Packed tokens that a device computes at a time."""
    patches_per_batch: int = 8192
    """Image patches that a device computes at a time."""
    mesh: MeshConfig = field(default_factory=MeshConfig)


_EXAMPLES = (
    "--model runs/quickstart/refine --input items.jsonl --output vectors.parquet",
    "--tpu --model gs://BUCKET/run --input gs://BUCKET/items.jsonl --output gs://BUCKET/out.npy",
)
_BRIEF = (
    "model",
    "input",
    "output",
    "columns",
    "media-root",
    "checkpoint",
    "profile",
    "dtype",
    "truncate-dim",
    "tokens-per-batch",
    "patches-per-batch",
    "compilation-cache",
    "tpu",
    "distributed",
)


@program
def main() -> int:
    """Parse, embed, say how many."""
    arguments = parse(_Arguments, examples=_EXAMPLES, brief=_BRIEF)
    columns = parse_columns(arguments.columns)
    arguments.announce()
    from lco_jax.data.sources.items import open_items
    from lco_jax.embed.embed_file import check_output, embed_items

    check_output(arguments.output)
    if not arguments.input:
        raise ValueError("--input names nothing; give a file, a pattern or a folder")
    arguments.join()
    items = open_items(arguments.input, columns, arguments.media_root)
    arguments.keep_compilations()
    embedder = arguments.open(
        tokens_per_batch=arguments.tokens_per_batch,
        patches_per_batch=arguments.patches_per_batch,
        mesh=arguments.mesh,
    )
    count, errors = embed_items(embedder, items, arguments.output)
    good = count - len(errors)
    log.info("%d vectors of width %d in %s", good, embedder.width, arguments.output)
    for index, text in sorted(errors.items()):
        log.error("item %d has no vector: %s", index, text)
    return FAILED if errors else DONE
