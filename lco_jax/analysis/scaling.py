"""The Generation-Representation Scaling Law: how representation after contrastive training grows
with generation before it.

Source: LCO-Emb §5. Its panels have 5, 4 and 2 points, so every fit comes with what so few points
can say: a bootstrap band, leave-one-out, and the classical interval of the slope.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import scipy.stats
from etils import epath
from jaxtyping import Float


@dataclass(frozen=True)
class Point:
    """One model: its generation before and its representation after contrastive training."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Panel:
    """The points of one modality."""

    title: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class LeftOut:
    """The fit without one point, and by how much it misses that point's y."""

    name: str
    slope: float
    intercept: float
    error: float


@dataclass(frozen=True)
class Fit:
    """A least-squares line through the points of a panel."""

    slope: float
    intercept: float
    pearson_r: float
    low: float
    """The 95 % percentile interval of the slope, points resampled."""
    high: float
    num_points: int
    t_low: float | None
    """The 95 % interval of the slope under normal errors; None for two points."""
    t_high: float | None
    p_value: float | None
    """Of no slope at all, under normal errors; None for two points."""
    leave_one_out: tuple[LeftOut, ...]
    resampled: Float[np.ndarray, "R 2"]
    """Slope and intercept of each resample, for the band."""

    @property
    def note(self) -> str:
        """What the number of points does to the interval."""
        if self.num_points == 2:
            return (
                "two points lie on a line: r is 1, and the interval is empty because no resample "
                "can disagree; it says nothing about uncertainty"
            )
        return f"{self.num_points} points; resamples of so few vary little or wildly"

    def band(self, x: Float[np.ndarray, "P"]) -> Float[np.ndarray, "2 P"]:
        """Lower and upper end of the 95 % band of the line at `x`."""
        lines = self.resampled[:, :1] * x + self.resampled[:, 1:]
        return np.percentile(lines, [2.5, 97.5], axis=0)


def published_panels() -> dict[str, Panel]:
    """The points of the paper's figure."""
    file = resources.files("lco_jax.analysis") / "published" / "scaling.json"
    panels = json.loads(file.read_text())["panels"]
    return {name: _parse_panel(panel, name) for name, panel in panels.items()}


def read_points(path: str) -> dict[str, Panel]:
    """The panels of a file of points, one per run.

    Args:
        path: `.csv` with the columns `panel`, `name`, `x`, `y`, or `.json` as the published data:
            `{"panels": {NAME: {"points": [{"name", "x", "y"}]}}}` with optional `title` and names
            of the axes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another ending, a missing field, or a value that is no finite number.
    """
    file = epath.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if file.suffix == ".csv":
        panels: dict[str, dict[str, Any]] = {}
        for line, row in enumerate(csv.DictReader(file.read_text().splitlines()), start=2):
            if not row.get("panel"):
                raise ValueError(f"{path}:{line}: has no 'panel'; columns are panel, name, x, y")
            panels.setdefault(row["panel"], {"points": []})["points"].append(row)
    elif file.suffix == ".json":
        panels = json.loads(file.read_text()).get("panels", {})
    else:
        raise ValueError(f"points {path} must end in .csv or .json")
    if not panels:
        raise ValueError(f"{path}: holds no points")
    return {name: _parse_panel(panel, f"{path}: {name}") for name, panel in panels.items()}


def fit(points: Sequence[Point], *, resamples: int = 10_000, seed: int = 0) -> Fit:
    """The least-squares line, with its bootstrap and every point left out in turn.

    Raises:
        ValueError: fewer than two different x.
    """
    x, y = (np.array([getattr(point, axis) for point in points]) for axis in "xy")
    if len(np.unique(x)) < 2:
        raise ValueError(f"a line needs two different x, got {x.tolist()}")
    line = scipy.stats.linregress(x, y)
    resampled = _resample(x, y, resamples, seed)
    low, high = np.percentile(resampled[:, 0], [2.5, 97.5])
    freedom = len(x) - 2
    margin = scipy.stats.t.ppf(0.975, freedom) * line.stderr if freedom else None
    return Fit(
        slope=float(line.slope),
        intercept=float(line.intercept),
        pearson_r=float(line.rvalue),
        low=float(low),
        high=float(high),
        num_points=len(x),
        t_low=float(line.slope - margin) if freedom else None,
        t_high=float(line.slope + margin) if freedom else None,
        p_value=float(line.pvalue) if freedom else None,
        leave_one_out=tuple(_leave_out(points, i, x, y) for i in range(len(x))) if freedom else (),
        resampled=resampled,
    )


def summary(panel: Panel, result: Fit) -> dict[str, Any]:
    """A panel of `scaling.json`."""
    fields = ("slope", "intercept", "pearson_r", "low", "high", "num_points", "t_low", "t_high")
    return {
        **{name: getattr(result, name) for name in (*fields, "p_value", "note")},
        "leave_one_out": [vars(left) for left in result.leave_one_out],
        "points": [vars(point) for point in panel.points],
        "title": panel.title,
        "x": panel.x_label,
        "y": panel.y_label,
    }


def _resample(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Lines through points drawn with replacement; draws of a single x have no line."""
    picks = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    x, y = x[picks], y[picks]
    x_mean, y_mean = (values.mean(axis=1, keepdims=True) for values in (x, y))
    varied = np.ptp(x, axis=1) > 0
    x, y = (x - x_mean)[varied], (y - y_mean)[varied]
    slopes = np.sum(x * y, axis=1) / np.sum(x * x, axis=1)
    intercepts = y_mean[varied, 0] - slopes * x_mean[varied, 0]
    return np.stack([slopes, intercepts], axis=1)


def _leave_out(points: Sequence[Point], index: int, x: np.ndarray, y: np.ndarray) -> LeftOut:
    line = scipy.stats.linregress(np.delete(x, index), np.delete(y, index))
    error = y[index] - (line.slope * x[index] + line.intercept)
    return LeftOut(points[index].name, float(line.slope), float(line.intercept), float(error))


def _parse_panel(panel: dict[str, Any], where: str) -> Panel:
    points = []
    for index, record in enumerate(panel.get("points", ())):
        try:
            point = Point(str(record["name"]), float(record["x"]), float(record["y"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{where}: point {index} is {record}; it needs a name and numbers x and y"
            ) from error
        if not np.isfinite([point.x, point.y]).all():
            raise ValueError(f"{where}: point {index} is {record}; x and y must be finite")
        points.append(point)
    title = panel.get("title", where.rpartition(" ")[2])
    x_label, y_label = panel.get("x", "generation"), panel.get("y", "representation")
    return Panel(title, x_label, y_label, tuple(points))
