"""The command line of `launch/export.py`."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.table import Table

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, program
from lco_jax.cli.parse import parse
from lco_jax.cli.show import show
from lco_jax.config import MeshConfig

if TYPE_CHECKING:
    from lco_jax.export.verify import Verification

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments(Compilations):
    """Export a model for other programs, and check that it gives the same vectors there."""

    model: str
    """Hub folder, hub id, adapter folder or run folder."""
    format: Literal["merged", "peft", "sentence-transformers"]
    """A whole model for transformers, the low-rank factors alone, or a whole model with the
    settings of sentence-transformers."""
    output: str
    """New folder."""
    soup: tuple[str, ...] = ()
    """More runs from the same base: the mean of the weights of all is exported."""
    checkpoint: int | None = None
    """Step of a run folder (default: the best evaluated one, else the last)."""
    dtype: Literal["bfloat16", "float32"] | None = None
    """Of the exported weights (default: as the run was trained). An adapter is float32."""
    verify: bool = True
    """Reload the folder in torch (float32, on the CPU) and compare vectors."""
    push_to: str | None = None
    """Upload the folder to this repository of the Hugging Face hub, e.g. `me/my-model`."""
    private: bool = False
    """With --push-to: a new repository is for its owners alone."""
    base_model: str | None = None
    """Hub id of the base model, for the model card (default: what the run calls it)."""
    mesh: MeshConfig = field(default_factory=MeshConfig)


_EXAMPLES = (
    "--model runs/quickstart/refine --format sentence-transformers --output my-model",
    "--model runs/a --soup runs/b runs/c --format merged --output soup",
)


@program
def main() -> int:
    """Parse, export, show the comparison."""
    arguments = parse(_Arguments, examples=_EXAMPLES)
    arguments.keep_compilations()
    from lco_jax.export.folders import export_model
    from lco_jax.export.push import check_push, push

    if arguments.push_to is not None:
        check_push(arguments.push_to)
    verification = export_model(
        arguments.model,
        arguments.output,
        arguments.format,
        soup=arguments.soup,
        checkpoint=arguments.checkpoint,
        dtype=arguments.dtype,
        verified=arguments.verify,
        mesh=arguments.mesh,
        base_model=arguments.base_model,
    )
    if verification is None:
        log.warning("%s was not verified", arguments.output)
    else:
        _show(verification)
        log.info("%s is verified", arguments.output)
    if arguments.push_to is not None:
        url = push(Path(arguments.output), arguments.push_to, private=arguments.private)
        log.info("uploaded to %s", url)
    return DONE


def _show(verification: "Verification") -> None:
    table = Table("reader", "modality", "items", "lowest cosine", "mean")
    for row in verification.comparisons:
        cosines = f"{row.min_cosine:.7f}", f"{row.mean_cosine:.7f}"
        table.add_row(row.reader, row.modality, str(row.count), *cosines)
    show(table, names=2)
