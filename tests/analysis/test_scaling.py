"""The scaling law: the paper's slopes from its points, planted lines, and honest intervals."""

import json

import numpy as np
import pytest

from lco_jax.analysis.scaling import Point, fit, published_panels, read_points


def _points(x, y):
    return [Point(f"p{i}", *pair) for i, pair in enumerate(zip(x, y, strict=True))]


@pytest.mark.parametrize(
    ("panel", "count", "slope", "intercept", "correlation"),
    [
        ("ocr", 5, 0.425, 38.84, 0.90),
        ("video", 4, 1.546, -66.0, 0.91),
        ("audio", 2, 0.118, 15.93, 1.0),
    ],
)
def test_published_fits(panel, count, slope, intercept, correlation):
    found = fit(published_panels()[panel].points)
    assert found.num_points == count
    assert found.slope == pytest.approx(slope, abs=0.005)
    assert found.pearson_r == pytest.approx(correlation, abs=0.005)
    # The printed slope is rounded, which moves the intercept by up to 0.0005 times the mean x.
    assert found.intercept == pytest.approx(intercept, abs=0.5)


def test_published_x_are_the_means_of_the_published_scores():
    from importlib import resources

    file = resources.files("lco_jax.analysis") / "published" / "scaling.json"
    points = [
        p for panel in json.loads(file.read_text())["panels"].values() for p in panel["points"]
    ]
    checked = [point for point in points if "scores" in point]
    assert len(checked) == 10
    for point in checked:
        assert np.mean(point["scores"]) == pytest.approx(point["x"], abs=0.04)


def test_a_planted_line_is_recovered_with_its_interval():
    rng = np.random.default_rng(0)
    x = np.linspace(0, 10, 200)
    found = fit(_points(x, 0.7 * x - 3 + 0.5 * rng.normal(size=200)))
    assert found.slope == pytest.approx(0.7, abs=0.04)
    assert found.low < 0.7 < found.high
    # With many points and equal noise both intervals are those of the normal theory.
    assert found.high - found.low == pytest.approx(found.t_high - found.t_low, rel=0.15)
    lower, upper = found.band(np.array([5.0]))
    assert lower[0] < 0.5 < upper[0]
    assert upper[0] - lower[0] == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(200), rel=0.2)


def test_bootstrap_equals_a_loop_over_resamples():
    points = published_panels()["ocr"].points
    found = fit(points, resamples=300, seed=5)
    x, y = (np.array([getattr(p, axis) for p in points]) for axis in "xy")
    picks = np.random.default_rng(5).integers(5, size=(300, 5))
    lines = [np.polyfit(x[pick], y[pick], 1) for pick in picks if len(set(x[pick])) > 1]
    np.testing.assert_allclose(found.resampled, lines, rtol=1e-6, atol=1e-6)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.percentile(np.array(lines)[:, 0], [2.5, 97.5])), rel=1e-6
    )


def test_leave_one_out():
    found = fit(_points([0.0, 1, 2, 3], [0.0, 1, 2, 9]))
    assert [left.name for left in found.leave_one_out] == ["p0", "p1", "p2", "p3"]
    last = found.leave_one_out[3]
    assert (last.slope, last.intercept, last.error) == pytest.approx((1, 0, 6))


def test_two_points_have_no_uncertainty_to_show():
    found = fit(published_panels()["audio"].points)
    assert found.low == pytest.approx(found.slope) and found.high == pytest.approx(found.slope)
    assert (found.t_low, found.t_high, found.p_value, found.leave_one_out) == (None, None, None, ())
    assert "says nothing about uncertainty" in found.note


def test_points_of_runs(tmp_path):
    csv = tmp_path / "points.csv"
    csv.write_text("panel,name,x,y\ntext,run-1,1.5,0.2\nimage,run-1,2,3\ntext,run-2,2.5,0.4\n")
    panels = read_points(str(csv))
    assert [point.name for point in panels["text"].points] == ["run-1", "run-2"]
    assert fit(panels["text"].points).slope == pytest.approx(0.2)
    file = tmp_path / "points.json"
    record = {"points": [{"name": "a", "x": 1, "y": 2}], "title": "Text", "x": "loss"}
    file.write_text(json.dumps({"panels": {"text": record}}))
    assert read_points(str(file))["text"].x_label == "loss"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "panel,name,x,y\nt,r,1,\n", "point 0 is"),
        ("a.csv", "panel,name,x,y\nt,r,1,nan\n", "must be finite"),
        ("a.csv", "name,x,y\nr,1,2\n", "a.csv:2: has no 'panel'"),
        ("a.json", "{}", "holds no points"),
        ("a.txt", "", "must end in .csv or .json"),
    ],
)
def test_bad_points(tmp_path, name, text, message):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_points(str(file))
    with pytest.raises(ValueError, match="two different x"):
        fit(_points([1.0, 1.0], [2.0, 3.0]))
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_points(str(tmp_path / "none.csv"))
