"""Figures of the layers of one or several models: spread and cosines of each modality, alignment of
each pair of modalities, and the map of all layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lco_jax.analysis.representation_tables import chance
from lco_jax.analysis.representations import MARGIN, Representations
from lco_jax.report.figures import COLOURS, STYLE
from lco_jax.report.scaling_figure import save

_SPREAD = {
    "mean_cosine": "mean cosine (band: 95 %)",
    "effective_rank": "effective rank",
    "isoscore": "IsoScore",
}
_SIZES = (COLOURS["after"], COLOURS["before"], "#7a4fa3", "#b0413e", "#4c6fb0")
_LAYER = "layer (0: embeddings)"


def draw(models: Sequence[Representations], folder: Path) -> None:
    """Write `spread`, `cosines`, `alignment`, `alignment_all` and, where all layers were compared,
    `every_layer` (png, svg)."""
    target = epath.Path(folder)
    metrics = [name for joined in models[0].pairs.values() for name in joined.alignment.values]
    metrics = list(dict.fromkeys(metrics))
    with matplotlib.rc_context(STYLE):
        save(_draw_spread(models), target, "spread")
        save(_draw_cosines(models), target, "cosines")
        save(_draw_alignment(models, metrics[:1]), target, "alignment")
        if len(metrics) > 1:
            save(_draw_alignment(models, metrics), target, "alignment_all")
        if all(joined.every_layer for joined in models[0].pairs.values()):
            save(_draw_maps(models), target, "every_layer")


def _style(models: Sequence[Representations], model: Representations) -> dict[str, Any]:
    """One colour a model, dashed before its training; of a single model one for each stage."""
    sizes = list(dict.fromkeys(one.model for one in models))
    colour = _SIZES[sizes.index(model.model) % len(_SIZES)]
    if len(sizes) == 1 and model.stage == "before":
        colour = COLOURS["before"]
    return {"color": colour, "linestyle": "--" if model.stage == "before" else "-"}


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(5, len(labels)), fontsize=9)


def _draw_spread(models: Sequence[Representations]) -> Figure:
    """Rows of measures, columns of modalities."""
    modalities = list(dict.fromkeys(name for model in models for name in model.spread))
    shape = (len(_SPREAD), len(modalities))
    figure = Figure(figsize=(1.4 + 3.3 * shape[1], 2.5 * shape[0] + 0.5), layout="constrained")
    grid = figure.subplots(*shape, squeeze=False, sharex=True, sharey="row")
    for row, (measure, title) in zip(grid, _SPREAD.items(), strict=True):
        for axes, modality in zip(row, modalities, strict=True):
            for model in models:
                if modality not in model.spread:
                    continue
                found = {name: np.array(x) for name, x in model.spread[modality].items()}
                values, style = found[measure], _style(models, model)
                axes.plot(values, label=model.name, linewidth=1.6, **style)
                if measure == "mean_cosine":
                    _band(axes, values, found[MARGIN], style["color"])
        row[0].set_ylabel(title)
        row[0].set_ylim(bottom=min(0, row[0].get_ylim()[0]))
    grid[0, 0].set_ylim(top=1.03)
    for axes, modality in zip(grid[0], modalities, strict=True):
        axes.set_title(modality)
    for axes in grid[-1]:
        axes.set_xlabel(_LAYER)
    _legend(figure, grid[0, 0])
    return figure


def _draw_cosines(models: Sequence[Representations]) -> Figure:
    """A row a model, its stages over each other; columns of modalities."""
    sizes = list(dict.fromkeys(model.model for model in models))
    modalities = list(dict.fromkeys(name for model in models for name in model.cosines))
    shape = (len(sizes), len(modalities))
    figure = Figure(figsize=(1.4 + 3.3 * shape[1], 2.2 * shape[0] + 0.9), layout="constrained")
    grid = figure.subplots(*shape, squeeze=False, sharex=True)
    for row, size in zip(grid, sizes, strict=True):
        own = [model for model in models if model.model == size]
        for axes, modality in zip(row, modalities, strict=True):
            means = []
            for model in own:
                if modality not in model.cosines:
                    continue
                found = model.cosines[modality]
                mean = model.spread[modality]["mean_cosine"][-1]
                colour = COLOURS["before" if model.stage == "before" else "after"]
                label = model.stage or "cosines"
                axes.stairs(
                    found.density, found.edges, fill=True, alpha=0.35, color=colour, label=label
                )
                axes.axvline(mean, color=colour, linewidth=1.4, linestyle=":")
                means.append(f"{mean:.2f}")
            axes.set_title(f"{modality}, mean {' → '.join(means)}".strip(), fontsize=10)
            axes.set_yticks([])
        row[0].set_ylabel(size or "density")
    found = [own for model in models for own in model.cosines.values()]
    lowest = min(own.edges[np.flatnonzero(own.density)[0]] for own in found)
    grid[0, 0].set_xlim(min(0, lowest), 1)
    for axes in grid[-1]:
        axes.set_xlabel("cosine of two items, last layer")
    _legend(figure, grid[0, 0])
    return figure


def _draw_alignment(models: Sequence[Representations], metrics: Sequence[str]) -> Figure:
    """Rows of pairs of modalities and columns of metrics, or of one metric a single row."""
    kinds = list(dict.fromkeys(name for model in models for name in model.pairs))
    panels = [(kind, metric) for kind in kinds for metric in metrics]
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    width = 5.2 if len(panels) == 1 else 3.6
    figure = Figure(figsize=(1 + width * across, 3.1 * down + 0.5), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (kind, metric) in zip(grid, panels, strict=False):
        for model in models:
            if kind not in model.pairs:
                continue
            joined = model.pairs[kind]
            values, style = joined.alignment.values[metric], _style(models, model)
            axes.plot(values, linewidth=1.6, label=model.name, **style)
            if metric == "mutual_knn":
                _band(axes, values, joined.alignment.margin, style["color"])
        joined = models[0].pairs[kind]
        if metric == "mutual_knn":
            axes.axhline(chance(joined), color=COLOURS["muted"], linestyle=":", label="chance")
        count = joined.alignment.num_items
        axes.set_title(f"{kind}, {count:,} pairs" if len(metrics) == 1 else f"{kind}: {metric}")
        axes.set_xlabel(_LAYER)
        if len(metrics) == 1:
            band = " (band: 95 %)" if metric == "mutual_knn" else ""
            axes.set_ylabel(f"{metric.replace('_', ' ')}{band}")
        if metric == "mutual_knn":
            axes.set_ylim(bottom=0)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    _legend(figure, grid[0])
    return figure


def _band(axes: Axes, values: np.ndarray, margin: np.ndarray, colour: str) -> None:
    layers = np.arange(len(values))
    axes.fill_between(
        layers, values - margin, values + margin, color=colour, alpha=0.15, linewidth=0
    )


def _draw_maps(models: Sequence[Representations]) -> Figure:
    """Each layer with each: rows of pairs of modalities, columns of models."""
    kinds = list(models[0].pairs)
    metric = next(iter(models[0].pairs[kinds[0]].every_layer.values))
    shape = (len(kinds), len(models))
    figure = Figure(figsize=(4.6 * shape[1] + 1, 4.2 * shape[0]), layout="constrained")
    grid = figure.subplots(*shape, squeeze=False)
    for row, kind in zip(grid, kinds, strict=True):
        tables = [model.pairs[kind].every_layer.values[metric] for model in models]
        highest = max(np.nanmax(table) for table in tables)
        for axes, model, table in zip(row, models, tables, strict=True):
            image = axes.imshow(table, origin="lower", cmap="magma", vmin=0, vmax=highest)
            axes.set_title(f"{kind}, {model.name}".rstrip(", "))
            axes.set(xlabel="layer of the positives", ylabel="layer of the anchors")
            axes.grid(visible=False)
        figure.colorbar(image, ax=list(row), shrink=0.85, label=metric.replace("_", " "))
    return figure
