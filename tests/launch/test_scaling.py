"""`launch/scaling.py`: the published panels, points of runs, and the bound."""

import json
import sys

import pytest

from lco_jax.cli.scaling import main


@pytest.fixture
def scaling(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["launch/scaling.py", *map(str, arguments)])
        code = main()
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return run


def test_published(scaling, tmp_path):
    code, said = scaling("--published", "--output", tmp_path / "out")
    assert code == 0, said
    panels = json.loads((tmp_path / "out" / "scaling.json").read_text())["panels"]
    expected = {"ocr": (0.425, 0.90), "video": (1.546, 0.91), "audio": (0.118, 1.0)}
    for name, (slope, correlation) in expected.items():
        assert panels[name]["slope"] == pytest.approx(slope, abs=0.005)
        assert panels[name]["pearson_r"] == pytest.approx(correlation, abs=0.005)
        assert panels[name]["low"] <= panels[name]["slope"] + 1e-9
        assert panels[name]["slope"] <= panels[name]["high"] + 1e-9
    assert len(panels["ocr"]["leave_one_out"]) == 5
    for kind in ("png", "svg"):
        assert (tmp_path / "out" / f"scaling.{kind}").stat().st_size > 10_000


def test_points_and_bounds_of_runs(scaling, tmp_path):
    points, bounds = tmp_path / "points.csv", tmp_path / "runs.jsonl"
    points.write_text("panel,name,x,y\ntext,a,1,2\ntext,b,2,3.5\ntext,c,3,5.5\n")
    terms = {"num_candidates": 64, "information": 1.0, "slack": 0.1, "kl": 2, "num_samples": 500}
    bounds.write_text(json.dumps({"name": "a", "measured_loss": 2.0, **terms}))
    code, said = scaling("--points", points, "--bounds", bounds, "--output", tmp_path / "out")
    assert code == 0, said
    panels = json.loads((tmp_path / "out" / "scaling.json").read_text())["panels"]
    assert panels["text"]["slope"] == pytest.approx(1.75)
    (row,) = json.loads((tmp_path / "out" / "bound.json").read_text())["runs"]
    assert row["valid"] > row["paper"] > row["measured_loss"]
    assert (tmp_path / "out" / "bound.png").exists()


def test_bad_usage(scaling, tmp_path):
    code, said = scaling("--output", tmp_path)
    assert (code, "nothing to do" in said) == (2, True)
    code, said = scaling("--published", "--points", "a.csv", "--output", tmp_path)
    assert (code, "exclude each other" in said) == (2, True)
    code, said = scaling("--points", tmp_path / "a.csv", "--output", tmp_path)
    assert (code, "a.csv: no such file" in said) == (2, True)
