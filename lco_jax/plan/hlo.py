"""The text of a compiled program as computations of instructions, and how often each runs."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAMES = re.compile(r"%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True)
class Shape:
    """One array."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool

    @property
    def num_bytes(self) -> int:
        """Without the padding of its tiles."""
        bits = _BITS.get(self.dtype) if self.dtype in _BITS else _bits(self.dtype)
        return -(-math.prod(self.dims) * bits // 8)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    """Of its result, tuples flattened."""
    operands: tuple[str, ...]
    argument: str
    """The text of its operands: of a constant or a parameter, its value or number."""
    attributes: str
    is_root: bool

    def attribute(self, name: str) -> str | None:
        """The text of `name={…}` or of `name=%…`."""
        match = re.search(rf"\b{name}=(\{{[^}}]*\}}|%?[^\s,]+)", self.attributes)
        return match[1] if match else None


class Program:
    """The computations of a compiled module."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if line.endswith("{") and line.startswith(("%", "ENTRY")):
                name = _NAMES.search(line)[1]
                current = self.computations.setdefault(name, {})
                if line.startswith("ENTRY"):
                    self.entry = name
            elif " = " in line and line.startswith(" "):
                instruction = _read(line)
                current[instruction.name] = instruction

    def run(self) -> Iterator[tuple[dict[str, Instruction], Instruction, int, bool]]:
        """Instructions with their computation, how often they run, and if within a fusion."""
        yield from self._run(self.entry, 1, False)

    def _run(self, name: str, times: int, fused: bool):
        computation = self.computations[name]
        for instruction in computation.values():
            yield computation, instruction, times, fused
            trips = self._trips(computation, instruction) if instruction.opcode == "while" else 1
            for called, fuses in _calls(instruction):
                yield from self._run(called, times * trips, fused or fuses)

    def _trips(self, computation: dict[str, Instruction], loop: Instruction) -> int:
        """How often the body of a loop runs: as noted, or from the counter of a scan."""
        noted = _TRIPS.search(loop.attributes)
        if noted:
            return int(noted[1])
        condition = self.computations[loop.attribute("condition").lstrip("%")]
        root = next(x for x in condition.values() if x.is_root)
        if root.opcode == "fusion":
            root = next(x for x in self.computations[root.attribute("calls").lstrip("%")].values()
                        if x.opcode == "compare")  # fmt: skip
        limits = [int(x.argument) for x in condition.values() if _is_count(x)]
        counter = next((x for x in condition.values() if x.opcode == "get-tuple-element"), None)
        if root.attribute("direction") != "LT" or len(limits) != 1 or counter is None:
            raise ValueError(f"the number of iterations of loop {loop.name} is not to be seen")
        start = computation[loop.operands[0]]
        if start.opcode == "tuple":
            first = computation[start.operands[int(counter.attribute("index"))]]
            while first.opcode in ("copy", "bitcast"):
                first = computation[first.operands[0]]
            if _is_count(first):
                return limits[0] - int(first.argument)
        return limits[0]


# --------------------------------------------------------------------------------- reading


def _read(line: str) -> Instruction:
    left, right = line.strip().split(" = ", 1)
    right = re.sub(r"/\*.*?\*/", "", right)
    kind_end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    kind, rest = right[:kind_end], right[kind_end:].lstrip()
    start = rest.index("(")
    end = _closing(rest, start)
    return Instruction(
        name=left.removeprefix("ROOT ").lstrip("%"),
        opcode=rest[:start],
        shapes=tuple(
            Shape(dtype, tuple(int(n) for n in dims.split(",") if n), "S(" not in layout)
            for dtype, dims, layout in _SHAPE.findall(kind)
        ),
        operands=tuple(_NAMES.findall(rest[start:end])),
        argument=rest[start + 1 : end],
        attributes=rest[end + 1 :],
        is_root=left.startswith("ROOT "),
    )


def _closing(text: str, start: int) -> int:
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _calls(instruction: Instruction) -> Iterator[tuple[str, bool]]:
    """Computations that an instruction runs: name, and if fused into it."""
    attribute, opcode = instruction.attribute, instruction.opcode
    if opcode == "while":
        yield attribute("body").lstrip("%"), False
    elif opcode == "fusion":
        yield attribute("calls").lstrip("%"), True
    elif opcode == "call":
        yield attribute("to_apply").lstrip("%"), False
    elif opcode == "async-start":
        yield attribute("calls").lstrip("%"), False
    elif opcode == "conditional":
        branches = attribute("branch_computations") or ""
        for name in _NAMES.findall(branches):
            yield name, False


def _bits(dtype: str) -> int:
    match = re.search(r"\d+", dtype)
    return int(match[0]) if match else 32


def _is_count(instruction: Instruction) -> bool:
    return instruction.opcode == "constant" and instruction.argument.isdigit()
