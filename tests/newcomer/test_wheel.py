"""The wheel, installed into an environment of its own, away from the repository."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import lco_jax
from tests import tiny

ROOT = Path(__file__).parents[2]
SOURCES = ("lco_jax", "configs", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")

SETTINGS = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with an environment that has the wheel, and this one's packages behind it."""
    home = tmp_path_factory.mktemp("home")
    source = home / "source"
    source.mkdir()
    for name in (*SOURCES, "NOTICE"):
        place = ROOT / name
        if place.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(place, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(place, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(home), str(source)], check=True)
    shutil.rmtree(source)
    (wheel,) = home.glob("*.whl")
    venv.create(home / "env", with_pip=False)
    (packages,) = (home / "env").glob("lib/python*/site-packages")
    # As a path alone: what is installed there as editable is not found through it.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    pip = [sys.executable, "-m", "pip", "--python", str(home / "env"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    return home


def lco(home, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(home / "env/bin/lco"), *map(str, arguments)],
        cwd=home,
        env=environment | SETTINGS | {"HOME": str(home)},
        capture_output=True,
        text=True,
    )


def test_version(home):
    run = lco(home, "--version")
    assert run.stdout == f"lco_jax {lco_jax.__version__}\n", run.stderr
    place = [str(home / "env/bin/python"), "-c", "import lco_jax; print(lco_jax.__file__)"]
    said = subprocess.run(place, cwd=home, capture_output=True, text=True, check=True).stdout
    assert said.startswith(str(home / "env"))


def test_shipped_files(home):
    (package,) = home.glob("env/lib/python*/site-packages/lco_jax")
    assert (package / "py.typed").is_file()
    assert {path.name for path in (ROOT / "configs").glob("*.py")} == {
        path.name for path in (package / "configs").glob("*.py")
    }
    for source in (ROOT / "lco_jax").rglob("*"):
        if source.suffix in (".j2", ".css", ".json", ".html"):
            assert (package / source.relative_to(ROOT / "lco_jax")).is_file(), source
    (notices,) = package.parent.glob("lco_jax-*.dist-info/licenses")
    assert {path.name for path in notices.iterdir()} == {"LICENSE", "NOTICE"}


@pytest.fixture(scope="module")
def model(home):
    """Relative to the home, where the programs run."""
    tiny.write(home / "model", num_layers=1)
    return "model"


def test_help_and_configs(home):
    run = lco(home, "--help")
    assert run.returncode == 0 and "embed" in run.stdout, run.stderr
    run = lco(home, "train", "--config", "lco_omni_7b_text", "--help-all")
    assert run.returncode == 0 and "Qwen/Qwen2.5-Omni-7B" in run.stdout, run.stderr
    run = lco(home, "train", "--config", "lco_omni_7b_txt")
    assert run.returncode == 2 and "did you mean lco_omni_7b_text" in run.stderr


def test_embed(home, model):
    (home / "items.jsonl").write_text('"a quick fox"\n"a lazy dog"\n')
    run = lco(home, "embed", "--model", model, "--input", "items.jsonl", "--output", "v.npy")
    assert run.returncode == 0, run.stderr
    np.testing.assert_allclose(np.linalg.norm(np.load(home / "v.npy"), axis=1), 1, atol=1e-5)
    assert list((home / ".cache/lco_jax/xla").glob("*-cache"))  # without being asked to


def test_train(home, model):
    rows = [f"question {n},answer {n}" for n in range(10, 90)]  # of one length: one shape
    (home / "my.csv").write_text("\n".join(["query,answer", *rows]) + "\n")
    own = ("--data", "my.csv", "--columns", "query=anchor,answer=positive", "--model", model)
    few = ("--num-steps", 10, "--data.batch-size", 8, "--memory.row-tokens", 64)
    run = lco(home, "train", *own, *few, "--workdir", "run", "--model.dtype", "float32")
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in (home / "run/metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == 10
    assert (home / "run/report/index.html").is_file()
