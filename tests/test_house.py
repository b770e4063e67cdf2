"""The order of the rooms: imports point down, and no two files need each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lco_jax"
ROOMS = (
    ("config",),
    ("jobs", "runtime"),
    ("nn",),
    ("models",),
    ("weights",),
    ("data",),
    ("objectives",),
    ("train",),
    ("plan", "metrics"),
    ("embed",),
    ("search", "evaluate", "analysis", "export"),
    ("report",),
    ("lab",),
    ("cli",),
)
"""From the ground up; rooms of one floor know nothing of each other."""
KNOWN_TO_JOBS = {"jobs", "config"}


def modules(package: Path) -> dict[str, ast.Module]:
    """Every module of a package, parsed, by its dotted name."""
    found = {}
    for file in package.rglob("*.py"):
        parts = file.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_text())
    return found


def imported(name: str, found: dict[str, ast.Module]) -> set[str]:
    """The modules of the package that one names anywhere: at its top, in functions, for types."""
    root, names = name.split(".")[0], set()
    for node in ast.walk(found[name]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in found else node.module)
    return {other for other in names if other.split(".")[0] == root and other != name}


def room_of(name: str) -> str | None:
    """The room of a module; None of the package itself, which is for its users and for `cli`."""
    if name.endswith(".__main__"):
        return "cli"
    return name.split(".")[1] if "." in name else None


def upward(found: dict[str, ast.Module]) -> list[str]:
    """Imports that do not point down."""
    floor = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    wrong = []
    for name in sorted(found):
        room = room_of(name)
        if room is None:
            continue
        for other in sorted(imported(name, found)):
            target = room_of(other)
            down = room == "cli" or (
                target is not None and (target == room or floor[target] < floor[room])
            )
            if room == "jobs":
                down = target in KNOWN_TO_JOBS
            if not down:
                wrong.append(f"{name} imports {other}")
    return wrong


def circle(found: dict[str, ast.Module]) -> list[str]:
    """Files that import each other in a circle, in order (none: empty)."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(imported(name, found)):
            if other in found and (way := visit(other, [*path, name])):
                return way
        done.add(name)
        return []

    for name in sorted(found):
        if way := visit(name, []):
            return way
    return []


@pytest.fixture(scope="module")
def house():
    return modules(PACKAGE)


def test_every_room_has_a_floor(house):
    rooms = {room_of(name) for name in house} - {None}
    assert rooms == {room for floor in ROOMS for room in floor}


def test_imports_point_down(house):
    assert upward(house) == []


def test_no_circles(house):
    assert circle(house) == []


@pytest.mark.parametrize(
    ("module", "line", "finding"),
    [
        ("data.records", "from lco_jax.train import loop", "lco_jax.train.loop"),
        ("embed.embedder", "import lco_jax.lab.fetch", "lco_jax.lab.fetch"),
        ("metrics.sts", "def f():\n    from lco_jax.plan.hlo import Program", "lco_jax.plan.hlo"),
        ("jobs.files", "from lco_jax.runtime.axes import act_spec", "lco_jax.runtime.axes"),
        ("nn.norm", "from lco_jax import Embedder", "lco_jax"),
    ],
)
def test_a_wrong_import_is_found(house, module, line, finding):
    name = f"lco_jax.{module}"
    changed = house | {name: ast.parse(f"{line}\n{ast.unparse(house[name])}")}
    assert f"{name} imports {finding}" in upward(changed)


def test_a_circle_is_found(house):
    lower, upper = "lco_jax.nn.norm", "lco_jax.nn.stack"
    changed = house | {
        lower: ast.parse(f"import {upper}"),
        upper: ast.parse(f"def f():\n    from {lower} import RMSNorm"),
    }
    assert set(circle(changed)) == {lower, upper}


@pytest.mark.parametrize("line", ["import lco_jax", "from lco_jax import Embedder"])
def test_the_product_does_without_the_lab(line):
    """Nor does it load frameworks that only exports, evaluations and builders need."""
    program = f"""{line}
import sys
heavy = {{"torch", "torchvision", "tensorflow", "mteb"}} & sys.modules.keys()
sys.exit(str(heavy) if heavy or any(name.startswith("lco_jax.lab") for name in sys.modules) else 0)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_files_have_one_subject():
    long = {
        str(file.relative_to(PACKAGE)): lines
        for file in PACKAGE.rglob("*.py")
        if (lines := len(file.read_text().splitlines())) > 300
    }
    assert long == {}
