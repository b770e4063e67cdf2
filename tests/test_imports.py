"""The core imports without torch, torchvision and tensorflow; embedding without what is slow."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import lco_jax

_PROGRAM = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
heavy = set(sys.argv[1].split(",")) & sys.modules.keys()
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""


def test_no_heavy_imports():
    names = [
        module.name
        for module in pkgutil.walk_packages(lco_jax.__path__, "lco_jax.")
        if not module.ispkg
    ]
    assert len(names) > 40
    check_without("torch,torchvision,tensorflow", names)


def test_embedding_does_not_wait_for_what_it_has_no_use_for():
    check_without("grain,scipy,orbax", ["lco_jax.cli.embed", "lco_jax.embed.embed_file"])


def test_every_benchmark_can_be_imported():
    """Those that compare with representax do so where it is; the others need no more than tests."""
    folder = Path(__file__).parents[1] / "benchmarks"
    names = [file.stem for file in folder.glob("*.py") if "representax_" not in file.stem]
    assert len(names) > 20
    check_without("representax", [f"benchmarks.{name}" for name in names])


def check_without(heavy, names):
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, heavy, *names], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
