"""What a compiled program does on one device: FLOPs, memory traffic, collectives.

A compiler's own cost analysis counts the body of a loop once; here every instruction counts as
often as it runs.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lco_jax.plan.hlo import Instruction, Program, Shape
from lco_jax.plan.kernel_cost import is_splash, splash_bytes, splash_flops

_COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
_NO_TRAFFIC = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "async-update",
)
_NO_WORK = ('"AllocateBuffer"', '"ConcatBitcast"')
"""Custom calls that only name memory."""
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\]|mesh\[(.*?)\] \{(.*?)\})")


@dataclass(frozen=True)
class Collective:
    """Communication of one kind among groups of one size."""

    kind: str
    group_size: int
    """Devices that take part; 0: all."""
    count: float
    num_bytes: float
    """Of the whole array on each device: the result of a gather, the operand of all others."""

    def sent_bytes(self, num_devices: int) -> float:
        """What a device sends, by the ring algorithms."""
        size = self.group_size or num_devices
        if self.kind == "collective-permute":
            return self.num_bytes
        passes = 2 if self.kind == "all-reduce" else 1
        return passes * self.num_bytes * (size - 1) / size


@dataclass(frozen=True)
class Cost:
    """What an instruction takes in all its runs on one device."""

    instruction: Instruction
    times: float
    """Of which a conditional may leave a part."""
    flops: float
    """Of matrix products and convolutions, kernels as they declare it."""
    hbm_bytes: float
    """Read and written, but for what stays in the cache."""
    collective: Collective | None


def costs(program: Program) -> Iterator[Cost]:
    """Of all instructions that cost anything; those of a fusion have their own FLOPs, but its
    memory traffic is that of the fusion.
    """
    for computation, instruction, times, fused in program.run():
        flops = times * _flops(computation, instruction)
        traffic = 0.0 if fused else times * _traffic(program, computation, instruction)
        collective = _collective(computation, instruction, times)
        if flops or traffic or collective:
            yield Cost(instruction, times, flops, traffic, collective)


def matmul_flops(program: Program) -> float:
    """Of all matrix products and convolutions, kernels as they declare it."""
    return sum(cost.flops for cost in costs(program))


def hbm_bytes(program: Program) -> float:
    """Read and written, but for what stays in the cache."""
    return sum(cost.hbm_bytes for cost in costs(program))


def collectives(rows: Iterable[Cost]) -> list[Collective]:
    """The communication of a program, by kind and size of group, most bytes first."""
    found: dict[tuple[str, int], list[float]] = {}
    for collective in (cost.collective for cost in rows if cost.collective):
        entry = found.setdefault((collective.kind, collective.group_size), [0, 0])
        entry[0] += collective.count
        entry[1] += collective.num_bytes
    kinds = [Collective(*key, round(count), size) for key, (count, size) in found.items()]
    return sorted(kinds, key=lambda row: -row.num_bytes)


# -------------------------------------------------------------------------------- counting


def _flops(computation, instruction: Instruction) -> float:
    match instruction.opcode:
        case "dot":
            return _dot_flops(computation, instruction)
        case "convolution":
            return _convolution_flops(computation, instruction)
        case "custom-call":
            if is_splash(instruction):
                return splash_flops(computation, instruction)
            return _declared_flops(instruction)
    return 0


def _collective(computation, instruction: Instruction, times: float) -> Collective | None:
    kind = instruction.opcode.removesuffix("-start")
    if kind not in _COLLECTIVES:
        return None
    moved = sum(
        shape.num_bytes for name in instruction.operands for shape in computation[name].shapes
    )
    if kind == "all-gather":
        moved = max(_bytes(instruction.shapes, anywhere=True) - moved, moved)
        if instruction.opcode == "all-gather":
            moved = _bytes(instruction.shapes, anywhere=True)
    return Collective(kind, _group_size(instruction), times, times * moved)


def _dot_flops(computation, instruction: Instruction) -> int:
    left = computation[instruction.operands[0]].shapes[0].dims
    contracted = re.findall(r"\d+", instruction.attribute("lhs_contracting_dims") or "")
    inner = math.prod(left[int(axis)] for axis in contracted)
    return 2 * math.prod(instruction.shapes[0].dims) * inner


def _convolution_flops(computation, instruction: Instruction) -> int:
    """FLOPs on real inputs: TPU compilers write matrix products as convolutions.

    Source: XLA HloCostAnalysis::GetConvolutionFlops.
    """
    left, right = (computation[name].shapes[0].dims for name in instruction.operands[:2])
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    lhs, rhs, out = labels.groups()
    window = _window(instruction)
    spatial = [label for label in out if label.isdigit()]
    positions = 1
    for label in spatial:
        axis = window(int(label))
        size = (left[lhs.index(label)], right[rhs.index(label)])
        positions *= _positions(*size, instruction.shapes[0].dims[out.index(label)], axis)
    groups = int(instruction.attribute("feature_group_count") or 1)
    batches = int(instruction.attribute("batch_group_count") or 1)
    inputs = left[lhs.index("f")] // groups
    batch = left[lhs.index("b")] // batches
    outputs = instruction.shapes[0].dims[out.index("f")]
    return 2 * inputs * outputs * batch * positions


def _window(instruction: Instruction):
    text = instruction.attribute("window") or "{}"
    fields = dict(part.split("=") for part in text.strip("{}").split())

    def axis(index: int) -> dict[str, int]:
        def read(name: str, default: int) -> int:
            return int(fields[name].split("x")[index].split("_")[0]) if name in fields else default

        return {
            "stride": read("stride", 1),
            "pad": read("pad", 0),
            "lhs": read("lhs_dilate", 1),
            "rhs": read("rhs_dilate", 1),
        }

    return axis


def _positions(size: int, kernel: int, output: int, axis: dict[str, int]) -> int:
    """Pairs of an output and a kernel position that meet an input, not padding or a gap."""
    last = (size - 1) * axis["lhs"]
    total = 0
    for offset in range(kernel):
        first = offset * axis["rhs"] - axis["pad"]
        if axis["lhs"] == 1:
            low = max(0, -(first // axis["stride"]))
            high = min(output - 1, (last - first) // axis["stride"])
            total += max(0, high - low + 1)
        else:
            places = range(first, first + output * axis["stride"], axis["stride"])
            total += sum(0 <= place <= last and place % axis["lhs"] == 0 for place in places)
    return total


def _declared_flops(instruction: Instruction) -> int:
    match = re.search(r'"cost_estimate":(\{[^}]*\})', instruction.attributes)
    return int(json.loads(match[1]).get("flops", 0)) if match else 0


def _fusion_traffic(program: Program, fusion: Instruction, reads: list[int], written: int) -> int:
    """What a fusion moves: of an operand that it slices only the slices, in place where it can."""
    body = program.computations[fusion.attribute("calls").lstrip("%")]
    total = written
    for number, size in enumerate(reads):
        parameter = _parameter(body, number)
        uses = [use for use in body.values() if parameter in use.operands]
        if len(uses) == 1 and uses[0].opcode == "dynamic-update-slice":
            update, into = uses[0].operands[1], uses[0].operands[0] == parameter
            if into:
                total -= min(written, size)
                size = sum(shape.num_bytes for shape in body[update].shapes)
        total += min(size, _used_bytes(program, body, parameter, size))
    return max(total, 0)


def _used_bytes(program: Program, body: dict[str, Instruction], name: str, size: int) -> int:
    """How much of an array of `size` bytes the instructions of a fusion look at."""
    total = 0
    for use in body.values():
        if name not in use.operands:
            continue
        if use.opcode in ("dynamic-slice", "slice", "gather"):
            # Of the dtype of the array: a slice may give another one.
            total += size * use.shapes[0].size // body[name].shapes[0].size
        elif use.opcode == "bitcast":
            total += _used_bytes(program, body, use.name, size)
        elif use.opcode == "fusion":
            inner = program.computations[use.attribute("calls").lstrip("%")]
            parameter = _parameter(inner, use.operands.index(name))
            if _is_renamed(inner, parameter):
                total += _used_bytes(program, body, use.name, size)
            else:
                total += _used_bytes(program, inner, parameter, size)
        else:
            return size
    return total


def _is_renamed(body: dict[str, Instruction], parameter: str) -> bool:
    """Whether all that a computation makes of a parameter is another shape of it."""
    result = next(x for x in body.values() if x.is_root)
    while result.opcode == "bitcast":
        result = body[result.operands[0]]
    return result.name == parameter


def _parameter(body: dict[str, Instruction], number: int) -> str:
    return next(
        x.name for x in body.values() if x.opcode == "parameter" and int(x.argument) == number
    )


def _traffic(program: Program, computation, instruction: Instruction) -> float:
    opcode = instruction.opcode
    if opcode in _NO_TRAFFIC or opcode.endswith("-done"):
        return 0
    if opcode == "custom-call" and instruction.attribute("custom_call_target") in _NO_WORK:
        return 0
    reads = [_bytes(computation[name].shapes) for name in instruction.operands]
    written = _bytes(instruction.shapes)
    if opcode == "fusion":
        return _fusion_traffic(program, instruction, reads, written)
    if is_splash(instruction):
        return splash_bytes(computation, instruction)
    if opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * written
    if opcode == "dynamic-update-slice":
        return 2 * reads[1]
    if opcode == "slice-start":  # the source, the slice, what it is waited for by
        source, piece = instruction.shapes[:2]
        return piece.num_bytes * (source.in_hbm + piece.in_hbm)
    if opcode.endswith("-start"):  # the result names the operand again
        return written
    return sum(reads) + written


def _bytes(shapes: tuple[Shape, ...], *, anywhere: bool = False) -> int:
    return sum(shape.num_bytes for shape in shapes if anywhere or shape.in_hbm)


def _group_size(instruction: Instruction) -> int:
    match = _GROUPS.search(instruction.attributes)
    if match is None:
        return 0
    listed, counted, axes, names = match.groups()
    if axes:  # mesh['axis_0'=2,'axis_1'=8] {'axis_1'}
        sizes = {name: int(size) for name, size in re.findall(r"('\w+')=(\d+)", axes)}
        return math.prod(sizes[name] for name in names.split(","))
    return len(listed.split(",")) if listed else int(counted or 0)
