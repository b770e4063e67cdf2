"""The figures of the run report, as inline SVG that follows the colours and fonts of its page."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Drawn in these colours, which `_svg` replaces by the page's variables of the same names, so that
# one figure serves the light and the dark theme.
COLOURS = {
    "ink": "#1c1e26",
    "muted": "#6b7078",
    "line": "#d9dce2",
    "before": "#c8702a",
    "after": "#0a7d8c",
}
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the fonts of the page
    "svg.hashsalt": "lco_jax",  # the same run gives the same bytes
    "font.size": 10,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": COLOURS["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}
_SMOOTH_FROM = 100  # curves with more points also get a running mean
NUM_MATRIX = 40  # pairs in a similarity matrix

Records = Sequence[dict[str, Any]]


def progress(train: Records, evals: Records) -> str:
    """Loss and accuracy of the training batches, with held-out retrieval beside it."""

    def draw(figure: Figure, panels: Sequence[Axes]) -> None:
        loss, accuracy = panels
        _curve(loss, train, "loss", "Contrastive loss")
        _curve(accuracy, train, "accuracy@1", "Accuracy", label="training batch")
        scored = [record for record in evals if "recall@1" in record]
        if scored:
            accuracy.plot(
                [record["step"] for record in scored],
                [record["recall@1"] for record in scored],
                "o--",
                color=COLOURS["ink"],
                markersize=5,
                linewidth=1,
                label="held-out Recall@1",
            )
        accuracy.set_ylim(0, 1.03)
        # On the line of the title, where no curve can run through it.
        place = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "borderaxespad": 0}
        accuracy.legend(ncols=2, fontsize=9, handlelength=1.4, columnspacing=1.2, **place)

    return _for_both_widths(2, draw, height=3.3, panel_height=2.6)


def stage_losses(stages: dict[str, Records]) -> str:
    """The loss of every stage, by name, side by side."""

    def draw(figure: Figure, panels: Sequence[Axes]) -> None:
        for axes, (name, train) in zip(panels, stages.items(), strict=True):
            _curve(axes, train, "loss", f"Loss of stage “{name}”")
            axes.set_ylim(bottom=0)

    return _for_both_widths(len(stages), draw, height=3.0, panel_height=2.6)


def vitals(train: Records) -> str:
    """Small curves of what tells a healthy run from a sick one."""

    def draw(figure: Figure, panels: Sequence[Axes]) -> None:
        cosines, norm, rate, speed = panels
        _curve(cosines, train, "positive_cosine", "Cosine in the batch", label="positive")
        _curve(cosines, train, "negative_cosine", label="negative", colour="muted")
        if cosines.lines:
            cosines.legend(fontsize=8)
        _curve(norm, train, "gradient_norm", "Gradient norm")
        _curve(rate, train, "learning_rate", "Learning rate", smooth=False)
        rate.yaxis.set_major_formatter("{x:g}")
        _curve(speed, train, "tokens_per_second", "Tokens per second")
        for axes in (norm, rate, speed):
            axes.set_ylim(bottom=0)

    style = {"font.size": 9, "axes.titlesize": 10}
    return _for_both_widths(4, draw, height=2.2, panel_height=2.0, style=style)


def cosine_histograms(cosines: dict[str, Float[np.ndarray, "n n"]]) -> str:
    """Cosines of true pairs over those of random pairs, one panel per evaluation.

    Args:
        cosines: by title, every anchor (row) with every positive (column).
    """
    lowest = min(0.0, *(float(values.min()) for values in cosines.values()))
    bins = np.linspace(lowest, 1.0, 71)
    colours = ("before", "after")[-len(cosines) :]

    def draw(figure: Figure, panels: Sequence[Axes]) -> None:
        for axes, colour, (title, values) in zip(panels, colours, cosines.items(), strict=True):
            values = np.minimum(values, 1.0)  # rounding may exceed the last bin
            true = np.diagonal(values)
            random = values[~np.eye(len(values), dtype=bool)]
            style = {"bins": bins, "density": True, "color": COLOURS[colour]}
            axes.hist(random, alpha=0.3, label=f"random pairs, mean {random.mean():.2f}", **style)
            label = f"true pairs, mean {true.mean():.2f}"
            axes.hist(true, histtype="step", linewidth=1.8, label=label, **style)
            axes.set_title(title)
            axes.set_yticks([])
            axes.spines.left.set_visible(False)
            axes.legend(loc="upper left")
        panels[-1].set_xlabel("cosine of an anchor with a positive")

    height = 1.9 * len(cosines) + 0.4
    return _for_both_widths(
        len(cosines), draw, height=height, panel_height=2.1, below=True, sharex=True
    )


def similarity_matrices(cosines: dict[str, Float[np.ndarray, "n n"]]) -> str:
    """The cosines of the first anchors (rows) and positives (columns), on one colour scale."""
    blocks = {title: values[:NUM_MATRIX, :NUM_MATRIX] for title, values in cosines.items()}
    lowest = min(0.0, *(float(block.min()) for block in blocks.values()))

    def draw(figure: Figure, panels: Sequence[Axes]) -> None:
        for axes, (title, block) in zip(panels, blocks.items(), strict=True):
            image = axes.imshow(block, cmap="magma", vmin=lowest, vmax=1, interpolation="nearest")
            axes.set_title(title)
            axes.set(xlabel="positive", ylabel="anchor", xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=list(panels), shrink=0.85, aspect=30, pad=0.02)
        bar.set_label("cosine")
        bar.outline.set_visible(False)

    style = {"axes.grid": False}
    return _for_both_widths(len(blocks), draw, height=4.4, panel_height=3.6, style=style)


def _for_both_widths(
    count: int,
    draw: Callable[[Figure, Sequence[Axes]], None],
    *,
    height: float,
    panel_height: float,
    below: bool = False,
    style: dict[str, Any] | None = None,
    **options: Any,
) -> str:
    """Two drawings, of which the style sheet of a page shows one: on a wide screen the panels stand
    side by side, on a narrow one (and `below`) each below the other, in letters of the same size.
    """
    sizes = {"wide": (10.0, height), "narrow": (4.4, count * panel_height)}
    drawn = []
    with matplotlib.rc_context(STYLE | (style or {})):
        for name, size in sizes.items():
            figure = Figure(figsize=size, layout="constrained")
            shape = (count, 1) if below or name == "narrow" else (1, count)
            draw(figure, figure.subplots(*shape, squeeze=False, **options).ravel())
            drawn.append(f'<div class="{name}">{_svg(figure)}</div>')
    return "".join(drawn)


def _curve(
    axes: Axes,
    records: Records,
    name: str,
    title: str | None = None,
    *,
    label: str | None = None,
    colour: str = "after",
    smooth: bool = True,
) -> None:
    points = [(record["step"], record[name]) for record in records if name in record]
    if title:
        axes.set_title(title)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if not points:
        return
    steps, values = np.array(points, dtype=float).T
    style = {"color": COLOURS[colour], "label": label}
    if len(points) < _SMOOTH_FROM or not smooth:
        marker = "o" if len(points) == 1 else None
        axes.plot(steps, values, linewidth=1.6, marker=marker, **style)
        return
    window = len(points) // 20 * 2 + 1  # odd, so that the mean is centred on a step
    axes.plot(steps, values, linewidth=0.8, alpha=0.35, color=COLOURS[colour])
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    axes.plot(steps[window // 2 : -(window // 2)], means, linewidth=1.8, **style)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]  # an inline figure has neither XML declaration nor DTD
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg
