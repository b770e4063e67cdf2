"""Pages say what is there: links lead somewhere, sizes are those of the models, the site builds."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import jax
import pytest
import yaml

from benchmarks.hardware import held
from lco_jax.runtime.axes import MESH_AXES

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "WORKSPACE.md", "CHANGELOG.md", "benchmarks/README.md")
DOCUMENTS = [*(ROOT / page for page in PAGES), *sorted((ROOT / "docs").rglob("*.md"))]
_TREE = ("benchmarks", "configs", "data", "docs", "launch", "lco_jax", "tests")


def _name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(page):
    """To a file, and to a heading of it; of pages of the site as well, read as plain Markdown."""
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link:
            continue
        if anchor and target.exists() and _generated(anchor, target):
            continue
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            missing.append(link)
    assert not missing


def _anchors(page):
    """What headings are called in addresses, as GitHub and the site do it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"\s+", "-", heading) for heading in plain}


def _generated(anchor, page):
    """Whether it is of what the site makes of docstrings, which the build of the site checks."""
    modules = re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
    return any(anchor.startswith(module) for module in modules)


@pytest.mark.parametrize("page", DOCUMENTS, ids=_name)
def test_files_of_the_repository_that_a_page_names_are_there(page):
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    named = re.findall(rf"`((?:{'|'.join(_TREE)})/[\w./-]*)`", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    # In the map of rooms, paths begin at the package.
    assert not [name for name in missing if not (ROOT / "lco_jax" / name).exists()]


@pytest.mark.parametrize("page", DOCUMENTS, ids=_name)
def test_extras_that_a_page_names_are_there(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"pip install -e '\.\[(\w+)\]'", page.read_text())
    assert set(named) <= set(project["optional-dependencies"])


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


@pytest.fixture
def models():
    """What docs/results/hardware.json says, by name."""
    record = json.loads((ROOT / "docs/results/hardware.json").read_text())
    return {model["model"]: model for model in record["models"]}


def test_every_model_has_a_row(models):
    files = {file.stem for file in (ROOT / "lco_jax/models/sizes").glob("*.json")}
    page = (ROOT / "docs/hardware.md").read_text()
    assert set(models) == files == {name for name in files if f"| {name}" in page}


@pytest.mark.parametrize("name", ("Qwen2.5-Omni-3B", "llama3-llava-next-8b-hf", "Llama-3.2-1B"))
def test_sizes_are_those_of_the_models(name, models):
    """Counted anew, and against the numbers of the published checkpoints."""
    with jax.set_mesh(jax.make_mesh((1, 1, 1), MESH_AXES, devices=jax.devices()[:1])):
        assert asdict(held(ROOT / f"lco_jax/models/sizes/{name}.json")) == models[name]
    # Of the whole checkpoint of Llama, whose head is its embedding.
    if name == "Llama-3.2-1B":
        assert models[name]["parameters"] == 1_235_814_400


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["preferred-citation"]["url"] == project["urls"]["Paper"]
