"""Figures of a model's layers: spread per modality, alignment, and the map of all layers."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from lco_jax.analysis.representations import Representations
from lco_jax.report.figures import COLOURS, STYLE
from lco_jax.report.scaling_figure import save

_SPREAD = {
    "mean_cosine": "Mean cosine (anisotropy)",
    "effective_rank": "Effective rank",
    "isoscore": "IsoScore",
}
_LINES = ("-", "--", ":", "-.")


def draw(models: Sequence[Representations], folder: Path) -> None:
    """Write `spread`, `alignment` and, where all layers were compared, `every_layer` (png, svg).

    `models` are one, or two: before and after.
    """
    colours = [COLOURS[name] for name in ("before", "after")][-len(models) :]
    target = epath.Path(folder)
    with matplotlib.rc_context(STYLE):
        save(_draw_spread(models, colours), target, "spread")
        save(_draw_alignment(models, colours), target, "alignment")
        if models[0].every_layer is not None:
            save(_draw_map(models), target, "every_layer")


def _draw_spread(models: Sequence[Representations], colours: list[str]) -> Figure:
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    for axes, (measure, title) in zip(figure.subplots(1, 3), _SPREAD.items(), strict=True):
        for model, colour in zip(models, colours, strict=True):
            for line, (modality, measures) in zip(_cycle(), model.spread.items(), strict=False):
                label = f"{modality}, {model.name}"
                axes.plot(measures[measure], line, color=colour, label=label, linewidth=1.6)
        axes.set_title(title)
        axes.set_xlabel("layer (0: embeddings)")
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    figure.axes[0].legend(fontsize=8)
    return figure


def _draw_alignment(models: Sequence[Representations], colours: list[str]) -> Figure:
    names = list(models[0].alignment.values)
    rows = -(-len(names) // 4)
    figure = Figure(figsize=(13, 3.1 * rows), layout="constrained")
    grid = figure.subplots(rows, min(4, len(names)), squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        for model, colour in zip(models, colours, strict=True):
            values = model.alignment.values[name]
            axes.plot(values, "o-", color=colour, label=model.name, linewidth=1.6, markersize=3)
        if name == "mutual_knn":
            chance = models[0].alignment.k / (models[0].alignment.num_items - 1)
            axes.axhline(chance, color=COLOURS["muted"], linestyle=":", label="chance")
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("layer (0: embeddings)")
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    grid[0].legend(fontsize=8)
    return figure


def _draw_map(models: Sequence[Representations]) -> Figure:
    name = next(iter(models[0].every_layer.values))
    tables = [model.every_layer.values[name] for model in models]
    highest = max(np.nanmax(table) for table in tables)
    figure = Figure(figsize=(5.4 * len(models), 4.6), layout="constrained")
    for axes, model, table in zip(
        figure.subplots(1, len(models), squeeze=False)[0], models, tables, strict=True
    ):
        image = axes.imshow(table, origin="lower", cmap="magma", vmin=0, vmax=highest)
        axes.set_title(f"{name.replace('_', ' ')}, {model.name}")
        axes.set(xlabel="layer of the positives", ylabel="layer of the anchors")
        axes.grid(visible=False)
    figure.colorbar(image, ax=figure.axes, shrink=0.85)
    return figure


def _cycle():
    while True:
        yield from _LINES
