"""The command line of `launch/analyze.py`."""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.table import Table

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, program
from lco_jax.cli.parse import parse
from lco_jax.cli.show import show
from lco_jax.config import MeshConfig
from lco_jax.metrics.names import METRICS, Metric

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments(Compilations):
    """Measure the representations of pairs in every layer: anisotropy, alignment, modality gap."""

    model: tuple[str, ...]
    """Hub folder, hub id, adapter folder or run folder; of several, all are in one picture."""
    pairs: tuple[str, ...]
    """JSON Lines files of pairs (`anchor`, `positive`), of texts, images, audio or videos; pairs of
    other modalities are compared apart."""
    output: str
    """Folder of the tables and figures."""
    before: tuple[str, ...] = ()
    """What each of the models was before its training, in the same order; it reads items as the
    trained model does, with its prompt, limits and media."""
    names: tuple[str, ...] = ()
    """What each of the models is called in pictures (default, of several: its folder)."""
    num_pairs: int = 1000
    """The first pairs of each file; the paper takes a thousand."""
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
    "--model runs/vl7b runs/vl3b --names 7B 3B --pairs images.jsonl --output analysis "
    "--before Qwen/Qwen2.5-VL-7B-Instruct Qwen/Qwen2.5-VL-3B-Instruct",
)


@program
def main() -> int:
    """Parse, measure one or two models, write tables and figures."""
    arguments = parse(_Arguments, examples=_EXAMPLES)
    chosen = _chosen(arguments)
    arguments.keep_compilations()
    from lco_jax.runtime.locks import only_writer

    output = Path(arguments.output)
    with only_writer(output):
        return _analyze(arguments, chosen, output)


def _chosen(arguments: _Arguments) -> list[tuple[str, str, str]]:
    """Of each model to measure: its name, its stage and where it is.

    Raises:
        ValueError: `--before` or `--names` are not as many as `--model`, or names are the same.
    """
    models, before = arguments.model, arguments.before
    for option, given in (("before", before), ("names", arguments.names)):
        if given and len(given) != len(models):
            raise ValueError(
                f"--{option} has {len(given)} and --model {len(models)}; give one for each model"
            )
    names = arguments.names or tuple(Path(path).resolve().name for path in models)
    if len(models) == 1 and not arguments.names:
        names = ("" if before else "model",)
    if len(set(names)) != len(names):
        raise ValueError(f"the models are called {', '.join(names)}; tell them apart with --names")
    chosen = []
    for index, (name, model) in enumerate(zip(names, models, strict=True)):
        if before:
            chosen.append((name, "before", before[index]))
        chosen.append((name, "after" if before else "", model))
    return chosen


def _analyze(arguments: _Arguments, chosen: list[tuple[str, str, str]], output: Path) -> int:
    """Measure, with tables and figures in a folder; the exit code."""
    from lco_jax.analysis import representation_tables
    from lco_jax.config import JsonlSource
    from lco_jax.data.sources.open import read_pairs
    from lco_jax.report import representation_figures

    pairs = [
        pair
        for file in arguments.pairs
        for pair in read_pairs(JsonlSource(file), arguments.num_pairs)
    ]
    models, read_as = [], None
    # What a model was before is read as it reads after: so its own turn comes first.
    for name, stage, path in reversed(chosen):
        own = read_as if stage == "before" else None
        found, read_as = _measure(arguments, name, stage, path, pairs, output, own)
        models.insert(0, found)
    if not arguments.keep_states:
        shutil.rmtree(output / "states")
    representation_tables.write_tables(models, output)
    representation_figures.draw(models, output)
    _show(models)
    log.info("%d pairs: tables and figures in %s", len(pairs), output)
    return DONE


def _measure(arguments: _Arguments, name, stage, path, pairs, output: Path, read_as):
    """The representations of one model, and how it reads items."""
    from lco_jax.analysis.representations import represent
    from lco_jax.analysis.states import open_layer_encoder
    from lco_jax.lab.media_texts import make_reader

    encoder = open_layer_encoder(
        path,
        checkpoint=None if stage == "before" else arguments.checkpoint,
        dtype=arguments.dtype,
        tokens_per_batch=arguments.tokens_per_batch,
        mesh=arguments.mesh,
        make_reader=make_reader,
        read_as=read_as,
    )
    found = represent(
        name,
        stage,
        encoder,
        pairs,
        output / "states" / (f"{name} {stage}".strip() or "model"),
        metrics=arguments.metrics,
        k=arguments.k,
        each_with_each=arguments.each_with_each,
    )
    return found, encoder.processor


def _show(models) -> None:
    """The last layer of every model."""
    table = Table("last layer", *(model.name for model in models))

    def add(label: str, values) -> None:
        table.add_row(label, *("" if value is None else f"{value:.3f}" for value in values))

    for modality in dict.fromkeys(name for model in models for name in model.spread):
        found = [model.spread.get(modality) for model in models]
        for measure in next(filter(None, found)):
            add(f"{measure}, {modality}", (own and own[measure][-1] for own in found))
    for kind in dict.fromkeys(name for model in models for name in model.pairs):
        found = [model.pairs.get(kind) for model in models]
        for metric in next(filter(None, found)).alignment.values:
            add(f"{metric}, {kind}", (own and own.alignment.values[metric][-1] for own in found))
        add(f"modality gap, {kind}", (own and own.gaps[-1].distance for own in found))
    show(table)
