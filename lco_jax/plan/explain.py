"""What of a compiled step costs most, by instruction, with the lines of our source behind it."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lco_jax.plan.abstract import TABLE_WIDTH
from lco_jax.plan.hlo import Program
from lco_jax.plan.hlo_cost import Cost

_NUM_ROWS = 10
_NUM_LINES = 3


@dataclass(frozen=True)
class Item:
    """An instruction's share of a resource in a step."""

    share: float
    amount: float
    """FLOPs or bytes of a chip."""
    times: float
    instruction: str
    source: tuple[str, ...]
    """Lines of ours, the innermost first: `file:line`."""


def explain(program: Program, rows: Iterable[Cost], num_chips: int) -> dict[str, list[Item]]:
    """For each resource the instructions that take most of it, down to a hundredth."""
    rows = list(rows)
    measures: dict[str, Callable[[Cost], float]] = {
        "compute (FLOPs)": lambda cost: cost.flops,
        "memory (bytes)": lambda cost: cost.hbm_bytes,
        "links (bytes sent)": lambda cost: (
            cost.collective.sent_bytes(num_chips) if cost.collective else 0.0
        ),
    }
    return {name: _most(program, rows, measure) for name, measure in measures.items()}


def describe(found: dict[str, list[Item]]) -> str:
    """One table for each resource."""
    console = Console(file=io.StringIO(), width=TABLE_WIDTH)
    for name, items in found.items():
        table = Table("share", "amount", "times", "instruction", "source", title=name)
        for item in items:
            cells = (
                f"{item.share:.0%}",
                f"{item.amount:.3g}",
                f"{item.times:,.0f}",
                item.instruction,
                " < ".join(item.source),
            )
            table.add_row(*map(escape, cells))
        console.print(table)
    return console.file.getvalue()


def _most(program: Program, rows: list[Cost], measure: Callable[[Cost], float]) -> list[Item]:
    total = sum(map(measure, rows))
    most = sorted(rows, key=measure, reverse=True)[:_NUM_ROWS]
    return [
        Item(
            share=measure(cost) / total,
            amount=measure(cost),
            times=cost.times,
            instruction=cost.instruction.name,
            source=program.source(cost.instruction)[:_NUM_LINES],
        )
        for cost in most
        if measure(cost) >= total / 100 > 0
    ]
