"""The products of a compiled step with matrices."""

from lco_jax.plan.abstract import AbstractRun
from lco_jax.plan.hlo import Program
from lco_jax.plan.hlo_cost import costs


def matrix_flops(run: AbstractRun) -> float:
    """FLOPs of all products of a step but those of attention, on the mesh that is set."""
    compiled = run.step.lower(run.state, run.batch, run.preamble).compile()
    program = Program(compiled.as_text())
    return sum(
        cost.flops
        for cost in costs(program)
        if not any("attention.py" in line for line in program.source(cost.instruction))
    )
