"""The text of a compiled program as computations of instructions, and how often each runs."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAMES = re.compile(r"%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONTINUED = re.compile(r'\n(?="|\}\})')
"""An instruction goes on in the next line where its attributes quote some."""
_HEADING = re.compile(r"^(FileNames|FunctionNames|FileLocations|StackFrames)$", re.MULTILINE)


@dataclass(frozen=True)
class Shape:
    """One array."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> int:
        """Without the padding of its tiles."""
        bits = _BITS.get(self.dtype) if self.dtype in _BITS else _bits(self.dtype)
        return -(-self.size * bits // 8)


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

    @property
    def op_name(self) -> str:
        """The path of transformations and named scopes that led to it."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""


class Program:
    """The computations of a compiled module.

    Args:
        shares: how often the true branch of a conditional runs (0 to 1), by the named scope that it
            was written in. Of any other conditional the branch that writes most counts as run each
            time, and the others as never.
    """

    def __init__(self, text: str, shares: Mapping[str, float] | None = None):
        text = _CONTINUED.sub(" ", text)
        self._shares = shares or {}
        self._frames = _Frames(text)
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

    def run(self) -> Iterator[tuple[dict[str, Instruction], Instruction, float, bool]]:
        """Instructions with their computation, how often they run, and if within a fusion."""
        yield from self._run(self.entry, 1, False)

    def source(self, instruction: Instruction) -> tuple[str, ...]:
        """The lines of this package that led to it, the innermost first: `file:line`. A fusion has
        those of its result, or where that has none, of what is fused into it.
        """
        found = self._frames.source(instruction)
        if not found and instruction.opcode == "fusion":
            inner = self.computations[instruction.attribute("calls").lstrip("%")]
            found = next(filter(None, map(self.source, reversed(inner.values()))), ())
        return found

    def _run(self, name: str, times: float, fused: bool):
        computation = self.computations[name]
        for instruction in computation.values():
            yield computation, instruction, times, fused
            for called, factor in self._calls(computation, instruction):
                fuses = instruction.opcode == "fusion"
                yield from self._run(called, times * factor, fused or fuses)

    def _calls(
        self, computation: dict[str, Instruction], instruction: Instruction
    ) -> Iterator[tuple[str, float]]:
        """Computations that an instruction runs, and how often each time."""
        if instruction.opcode == "conditional":
            branches = _branches(instruction)
            yield from zip(branches, self._branch_shares(instruction, branches), strict=True)
        elif instruction.opcode in _CALLERS:
            trips = self._trips(computation, instruction) if instruction.opcode == "while" else 1
            yield instruction.attribute(_CALLERS[instruction.opcode]).lstrip("%"), trips

    def _branch_shares(self, instruction: Instruction, branches: list[str]) -> list[float]:
        scopes = instruction.op_name.split("/")
        share = next((self._shares[name] for name in scopes if name in self._shares), None)
        if share is not None and len(branches) == 2:  # false, true
            return [1 - share, share]
        written = [self._written(name) for name in branches]
        return [float(place == written.index(max(written))) for place in range(len(branches))]

    def _written(self, name: str) -> float:
        """Bytes of the results of all instructions of a computation and of what it calls."""
        return sum(
            times * sum(shape.num_bytes for shape in instruction.shapes)
            for _, instruction, times, _ in self._run(name, 1, False)
        )

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
            raise ValueError(
                f"the number of iterations of loop {loop.name} cannot be read from the program"
            )
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


_CALLERS = {"while": "body", "fusion": "calls", "call": "to_apply", "async-start": "calls"}
"""The attribute that names the computation which an instruction runs."""


def _branches(conditional: Instruction) -> list[str]:
    """The computations of its branches: that of false before that of true."""
    listed = conditional.attribute("branch_computations")
    if listed:
        return _NAMES.findall(listed)
    names = ("false_computation", "true_computation")
    return [conditional.attribute(name).lstrip("%") for name in names]


def _bits(dtype: str) -> int:
    match = re.search(r"\d+", dtype)
    return int(match[0]) if match else 32


def _is_count(instruction: Instruction) -> bool:
    return instruction.opcode == "constant" and instruction.argument.isdigit()


class _Frames:
    """The table of source lines of a module's text."""

    def __init__(self, text: str):
        parts = _HEADING.split(text.partition("\n\n%")[0])
        tables = {name: rows.strip() for name, rows in zip(parts[1::2], parts[2::2], strict=True)}
        self._files = dict(re.findall(r'^(\d+) "(.*)"$', tables.get("FileNames", ""), re.MULTILINE))
        self._lines = {
            number: (file, line)
            for number, file, line in re.findall(
                r"^(\d+) \{file_name_id=(\d+) .*?\bline=(\d+)",
                tables.get("FileLocations", ""),
                re.MULTILINE,
            )
        }
        self._frames = {
            int(number): (location, int(parent) - 1)
            for number, location, parent in re.findall(
                r"^(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)\}",
                tables.get("StackFrames", ""),
                re.MULTILINE,
            )
        }

    def source(self, instruction: Instruction) -> tuple[str, ...]:
        match = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        frame, places = int(match[1]) if match else 0, []
        while frame in self._frames:
            location, frame = self._frames[frame]
            file, line = self._lines.get(location, ("", ""))
            name = self._files.get(file, "")
            _, found, rest = name.rpartition("/lco_jax/")
            if found and f"{rest}:{line}" not in places:
                places.append(f"{rest}:{line}")
        return tuple(places)
