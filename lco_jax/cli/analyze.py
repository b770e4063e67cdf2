"""The command line of `launch/analyze.py`."""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, program
from lco_jax.cli.parse import parse
from lco_jax.config import MeshConfig
from lco_jax.metrics.names import METRICS, Metric

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments(Compilations):
    """Measure the representations of pairs in every layer: anisotropy, alignment, modality gap."""

    model: str
    """Hub folder, hub id, adapter folder or run folder."""
    pairs: str
    """JSON Lines file of pairs (`anchor`, `positive`)."""
    output: str
    """Folder of the tables and figures."""
    before: str | None = None
    """Another model to compare with: the one before training."""
    num_pairs: int = 1000
    """The first pairs of the file; the paper takes 1,000."""
    k: int = 10
    """Neighbours of an item."""
    metrics: tuple[Metric, ...] = METRICS
    each_with_each: bool = False
    """Also compare every layer of the anchors with every layer of the positives."""
    keep_states: bool = False
    """Leave the states of all layers in the output folder."""
    checkpoint: int | None = None
    """Step of a run folder (default: the best evaluated one, else the last)."""
    dtype: Literal["bfloat16", "float32"] | None = None
    """Of weights and activations."""
    tokens_per_batch: int = 4096
    """Packed tokens that a device computes at a time."""
    mesh: MeshConfig = field(default_factory=MeshConfig)


_EXAMPLES = (
    "--model runs/quickstart/refine --pairs data/quickstart/wordnet_test.jsonl --output analysis",
    "--model runs/vl7b --before Qwen/Qwen2.5-VL-7B-Instruct --pairs pairs.jsonl --output analysis",
)


@program
def main() -> int:
    """Parse, measure one or two models, write tables and figures."""
    arguments = parse(_Arguments, examples=_EXAMPLES)
    arguments.keep_compilations()
    from lco_jax.runtime.locks import only_writer

    output = Path(arguments.output)
    with only_writer(output):
        return _analyze(arguments, output)


def _analyze(arguments: _Arguments, output: Path) -> int:
    """Measure, with tables and figures in a folder; the exit code."""
    from lco_jax.analysis import representations
    from lco_jax.analysis.states import open_layer_encoder
    from lco_jax.config import JsonlSource
    from lco_jax.data.sources.open import read_pairs
    from lco_jax.lab.media_texts import make_reader
    from lco_jax.report import representation_figures

    pairs = read_pairs(JsonlSource(arguments.pairs), arguments.num_pairs)
    named = {"after": arguments.model} if arguments.before else {"model": arguments.model}
    if arguments.before:
        named = {"before": arguments.before, **named}
    models = []
    for name, path in named.items():
        encoder = open_layer_encoder(
            path,
            checkpoint=None if name == "before" else arguments.checkpoint,
            dtype=arguments.dtype,
            tokens_per_batch=arguments.tokens_per_batch,
            mesh=arguments.mesh,
            make_reader=make_reader,
        )
        found = representations.represent(
            name,
            encoder,
            pairs,
            output / "states" / name,
            metrics=arguments.metrics,
            k=arguments.k,
            each_with_each=arguments.each_with_each,
        )
        models.append(found)
    if not arguments.keep_states:
        shutil.rmtree(output / "states")
    representations.write_tables(models, output)
    representation_figures.draw(models, output)
    _show(models)
    log.info("%d pairs: tables and figures in %s", len(pairs), output)
    return DONE


def _show(models) -> None:
    """The last layer of every model."""
    table = Table("last layer", *(model.name for model in models))
    for modality, measures in models[0].spread.items():
        for measure in measures:
            values = (model.spread[modality][measure][-1] for model in models)
            table.add_row(f"{measure}, {modality}", *(f"{value:.3f}" for value in values))
    for name in models[0].alignment.values:
        values = (model.alignment.values[name][-1] for model in models)
        table.add_row(name, *(f"{value:.3f}" for value in values))
    table.add_row("modality gap", *(f"{model.gaps[-1].distance:.3f}" for model in models))
    Console().print(table)
