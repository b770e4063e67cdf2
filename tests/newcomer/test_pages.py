"""Pages say what is there: links lead somewhere, sizes are those of the models, the site builds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lco_jax.models.build import build
from lco_jax.models.config import read_config
from lco_jax.models.omni import available_towers

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "WORKSPACE.md", "CHANGELOG.md")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", (ROOT / page).read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    # The theme's own news is no warning of ours.
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    assert "truncate_dim" in (tmp_path / "reference/api.html").read_text()
    assert "batch_size" in (tmp_path / "reference/config.html").read_text()


ROWS = re.findall(
    r"^\| ([A-Za-z][\w.-]+).*?\| ([\d.]+) billion \| ([\d.]+) GB \| ([\d.]+) GB \| ([\d,]+) \|$",
    (ROOT / "docs/hardware.md").read_text(),
    re.MULTILINE,
)


def test_every_model_has_a_row():
    assert {name for name, *_ in ROWS} == {
        file.stem for file in (ROOT / "lco_jax/models/sizes").glob("*.json")
    }


@pytest.mark.parametrize(("name", "billions", "half", "whole", "width"), ROWS)
def test_sizes_are_those_of_the_models(tmp_path, name, billions, half, whole, width):
    shutil.copy(ROOT / f"lco_jax/models/sizes/{name}.json", tmp_path / "config.json")
    config = read_config(tmp_path)
    _, _, shapes = build(config, None, "bfloat16", towers=available_towers(config))
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert abs(count - float(billions) * 1e9) <= 0.05e9
    assert abs(2 * count - float(half) * 1e9) <= 0.06e9
    assert abs(4 * count - float(whole) * 1e9) <= 0.06e9
    assert config.text.hidden_size == int(width.replace(",", ""))
