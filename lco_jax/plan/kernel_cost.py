"""What JAX's splash attention kernels do: they declare no cost of their own.

A kernel runs over blocks of queries and of keys, of which a causal mask leaves about half. Segments
leave out none: they are masked within a block. What the kernel accumulates stays on the chip; of
the side that its inner loop goes over, a block is read again for each block of the other side.
"""

import re

from lco_jax.plan.hlo import Instruction, Shape

_NAME = re.compile(r"splash_mha_(fwd|dq|dkv)_")
_BLOCK = re.compile(r'block_q(?:_\w+)?\\+": (\d+)')
_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}
"""Matrix products of a block: scores and context; again the scores, their gradients, and that of
the queries, or those of the values and of the keys."""
_QUERY, _KEY, _VALUE = 2, 3, 4
_NUM_OPERANDS = {"fwd": 7, "dq": 10, "dkv": 10}
"""Two tables of blocks, queries, keys, values, segments of both; then log-sum-exps, the context's
gradient and its mean. With a causal mask, one more: the places of the queries."""
_INNER = {"fwd": (_KEY, _VALUE), "dq": (_KEY, _VALUE), "dkv": (_QUERY, 7, 8, 9)}


def _phase(instruction: Instruction) -> str | None:
    match = _NAME.search(instruction.op_name)
    return match[1] if match and instruction.opcode == "custom-call" else None


def is_splash(instruction: Instruction) -> bool:
    """Whether an instruction is one of these kernels."""
    return _phase(instruction) is not None


def splash_flops(computation: dict[str, Instruction], instruction: Instruction) -> float:
    """Of the matrix products of the blocks that run."""
    phase, (*rows, length, width) = _phase(instruction), _dims(computation, instruction, _QUERY)
    num_blocks, block = _blocks(instruction, length)
    products = _PRODUCTS[phase] * 2.0 * block * block * width
    for size in rows:
        products *= size
    return products * _pairs(instruction, phase, num_blocks)


def splash_bytes(computation: dict[str, Instruction], instruction: Instruction) -> float:
    """Read and written, those blocks that are read again included."""
    phase = _phase(instruction)
    *_, num_heads, length, _ = _dims(computation, instruction, _QUERY)
    num_blocks, _ = _blocks(instruction, length)
    again = 1.0
    if num_blocks > 1:
        again = _pairs(instruction, phase, num_blocks) / num_blocks
    total = float(sum(map(_size, instruction.shapes)))
    for place, name in enumerate(instruction.operands):
        shape = computation[name].shapes[0]
        size = _size(shape)
        if place in _INNER[phase]:
            size *= again
            if num_blocks > 1:  # each head of the queries reads its keys for itself
                size *= num_heads / shape.dims[-3] if place in (_KEY, _VALUE) else 1
        total += size
    return total


def _dims(computation, instruction: Instruction, place: int) -> tuple[int, ...]:
    return computation[instruction.operands[place]].shapes[0].dims


def _blocks(instruction: Instruction, length: int) -> tuple[int, int]:
    """How many blocks a row has, and of how many tokens."""
    block = int(_BLOCK.search(instruction.attributes)[1])
    return length // block, block


def _pairs(instruction: Instruction, phase: str, num_blocks: int) -> float:
    """Pairs of a block of queries and one of keys that are looked at."""
    is_causal = len(instruction.operands) > _NUM_OPERANDS[phase]
    return num_blocks * (num_blocks + 1) / 2 if is_causal else num_blocks**2


def _size(shape: Shape) -> int:
    return shape.num_bytes if shape.in_hbm else 0
