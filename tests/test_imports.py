"""The core imports without torch, torchvision and tensorflow."""

import pkgutil
import subprocess
import sys

import lco_jax

_PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
heavy = {"torch", "torchvision", "tensorflow"} & sys.modules.keys()
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""


def test_no_heavy_imports():
    names = [
        module.name
        for module in pkgutil.walk_packages(lco_jax.__path__, "lco_jax.")
        if not module.ispkg
    ]
    assert len(names) > 40
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *names], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
