"""What a config takes on a TPU slice that is not there, from the TPU compiler itself."""

import dataclasses
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax

from lco_jax.config import TrainConfig
from lco_jax.objectives.contrastive import exchange_of
from lco_jax.objectives.traits import traits_of
from lco_jax.plan.abstract import (
    AbstractRun,
    abstract_run,
    count,
    saved_activations,
    shard_bytes,
    text_table,
)
from lco_jax.plan.explain import Item, explain
from lco_jax.plan.hlo import Program
from lco_jax.plan.hlo_cost import Collective, collectives, costs
from lco_jax.plan.suggestions import suggest
from lco_jax.plan.topologies import Topology
from lco_jax.plan.useful_work import matrix_weights, useful_work
from lco_jax.runtime import mesh as meshes

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_EXCEEDS = re.compile(r"([\d.]+)([KMGT])\)? exceeds|Used ([\d.]+)([KMGT]) of")


@dataclass(frozen=True)
class Roofline:
    """Seconds that a step takes at least on each resource of a chip, all at their peak."""

    compute_s: float
    hbm_s: float
    ici_s: float
    dcn_s: float

    @property
    def step_s(self) -> float:
        """If everything overlaps perfectly."""
        return max(dataclasses.astuple(self))


@dataclass(frozen=True)
class Plan:
    """A compiled step, or why it does not fit."""

    topology: str
    num_slices: int
    num_chips: int
    mesh: dict[str, int]
    triplets: int
    negatives_per_anchor: int
    rows: str
    exchange: str
    """How candidates meet anchors."""
    parameters: dict[str, int]
    """Trainable, frozen, and the decoder's matrix weights (N)."""
    bytes_per_chip: dict[str, int]
    available_bytes: int
    fits: bool
    problem: str | None = None
    suggestions: tuple[str, ...] = ()
    compile_s: float | None = None
    flops_per_token: float | None = None
    """Of all matrix products of the step, over all slots, padding included."""
    flops_in_n: float | None = None
    """The same in units of N: a LoRA step without recomputation has 4 and a little."""
    collectives: tuple[Collective, ...] = ()
    roofline: Roofline | None = None
    mfu_bound: float | None = None
    """Useful work (see `UsefulWork`), over what the chips could do in the roofline time."""
    tokens_per_s: float | None = None
    """Real tokens of the whole slice at the roofline, of text and of images."""
    share_real_tokens: float | None = None
    """Of all slots of the rows."""
    explanation: dict[str, list[Item]] | None = None
    """What costs most of each resource, if asked for."""

    def to_json(self) -> dict:
        """Plain values."""
        content = dataclasses.asdict(self)
        if self.roofline:
            content["roofline"]["step_s"] = self.roofline.step_s
        return content


def make_plan(
    config: TrainConfig,
    topology: Topology,
    *,
    explained: bool = False,
    advised: bool = True,
    make_run: Callable[[TrainConfig], AbstractRun] | None = None,
) -> Plan:
    """Compile the training step of a config for a slice.

    Args:
        explained: also say which instructions cost most.
        advised: if it does not fit, also say what should.
        make_run: what is compiled, if not the step of the config.

    Raises:
        ValueError: the config does not fit the mesh or the model.
    """
    mesh = meshes.make_mesh(config.mesh, topology.devices)
    with jax.set_mesh(mesh):
        run = (make_run or abstract_run)(config)
        plan = _frame(config, topology, mesh, run)
        if sum(plan.bytes_per_chip.values()) > plan.available_bytes:
            return _too_big(plan, config, topology, run, "", advised)
        start = time.perf_counter()
        try:
            compiled = run.step.lower(run.state, run.batch, run.preamble).compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return _too_big(plan, config, topology, run, str(error), advised)
        seconds = time.perf_counter() - start
    plan = dataclasses.replace(plan, compile_s=seconds, fits=True)
    return _measured(plan, config, topology, run, compiled, explained)


def describe(plan: Plan, title: str = "plan") -> str:
    """A plan as a table."""
    gigabytes = lambda size: f"{size / 1e9:.2f} GB"  # noqa: E731
    slices = f"{plan.num_slices} x " if plan.num_slices > 1 else ""
    rows = {
        "slice": f"{slices}{plan.topology}, {plan.num_chips} chips",
        "mesh": " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items()),
        "batch": f"{plan.triplets} examples; {plan.rows}",
    }
    if plan.negatives_per_anchor:
        rows["negatives per anchor"] = f"{plan.negatives_per_anchor:,} ({plan.exchange})"
    rows |= {f"parameters: {name}": f"{size:,}" for name, size in plan.parameters.items()}
    rows |= {f"per chip: {name}": gigabytes(size) for name, size in plan.bytes_per_chip.items()}
    rows["per chip: available"] = gigabytes(plan.available_bytes)
    if plan.fits:
        times = plan.roofline
        for row in plan.collectives:
            group = row.group_size or plan.num_chips
            rows[f"{row.kind} of {group}"] = f"{row.count:,} times, {gigabytes(row.num_bytes)}"
        rows |= {
            "flops per token": f"{plan.flops_per_token:.3g} = {plan.flops_in_n:.2f} N",
            "roofline": (
                f"{times.step_s * 1e3:.1f} ms: compute {times.compute_s * 1e3:.1f}, memory "
                f"{times.hbm_s * 1e3:.1f}, links {times.ici_s * 1e3:.1f}, between slices "
                f"{times.dcn_s * 1e3:.1f}"
            ),
            "slots of real tokens": f"{plan.share_real_tokens:.0%}",
            "real tokens per second, at most": f"{plan.tokens_per_s:,.0f}",
            "model-flop utilisation, at most": f"{plan.mfu_bound:.0%} of useful work",
            "compiled in": f"{plan.compile_s:.0f} s",
        }
    else:
        rows["does not fit"] = plan.problem
        for number, text in enumerate(plan.suggestions, 1):
            rows[f"should fit ({number})"] = text
    return text_table(title, rows.items())


def _frame(config: TrainConfig, topology: Topology, mesh, run: AbstractRun) -> Plan:
    state, shape = run.state, run.shape
    kinds = {
        "frozen weights": shard_bytes(state.frozen),
        "trained weights": shard_bytes(state.trainable),
        "optimizer": shard_bytes(state.opt_state),
        "batch": shard_bytes(run.batch),
    }
    num_shards = meshes.num_shards(mesh)
    pooled_shape = (*run.batch.pool.shape, run.model.text.hidden_size)
    roles = traits_of(config.objective).assume(config).roles
    idle = math.prod(run.batch.pool.shape) // roles - config.data.batch_size
    return Plan(
        topology=topology.name,
        num_slices=topology.num_slices,
        num_chips=len(topology.devices),
        mesh=dict(mesh.shape),
        triplets=config.data.batch_size,
        negatives_per_anchor=traits_of(config.objective).num_negatives(config),
        rows=(
            f"{run.batch.tokens.shape[0]} chunks of {shape.rows} rows of {shape.row_tokens} "
            f"tokens a shard, {idle} slots idle"
        ),
        exchange=exchange_of(config.memory, pooled_shape, num_shards),
        parameters={
            "trained": count(state.trainable),
            "frozen": count(state.frozen),
            "N": matrix_weights(run.model.text),
        },
        bytes_per_chip=kinds,
        available_bytes=int(topology.chip.hbm_bytes),
        fits=False,
    )


def _measured(
    plan: Plan, config, topology: Topology, run: AbstractRun, compiled, explained: bool
) -> Plan:
    chip, program = topology.chip, Program(compiled.as_text(), run.shares)
    memory = compiled.memory_analysis()
    kinds = plan.bytes_per_chip | {
        "arguments in all": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "peak": memory.peak_memory_in_bytes,
    }
    rows = list(costs(program))
    flops = sum(cost.flops for cost in rows)
    found = collectives(rows)
    per_slice = plan.num_chips // plan.num_slices
    within = [row for row in found if (row.group_size or plan.num_chips) <= per_slice]
    across = [row for row in found if (row.group_size or plan.num_chips) > per_slice]
    sent = sum(row.sent_bytes(plan.num_chips) for row in within)
    # An array that all slices share crosses a slice's border once, in pieces from all its chips.
    crossing = sum(row.num_bytes / per_slice for row in across)
    roofline = Roofline(
        compute_s=flops / chip.bf16_flops,
        hbm_s=sum(cost.hbm_bytes for cost in rows) / chip.hbm_bytes_per_s,
        ici_s=sent / chip.ici_bytes_per_s,
        dcn_s=crossing / chip.dcn_bytes_per_s,
    )
    weights = plan.parameters["N"]
    per_token = flops * plan.num_chips / run.slots
    work = useful_work(config, run.model)
    peak = plan.num_chips * chip.bf16_flops * roofline.step_s
    return dataclasses.replace(
        plan,
        bytes_per_chip=kinds,
        flops_per_token=per_token,
        flops_in_n=per_token / weights,
        collectives=tuple(found),
        roofline=roofline,
        mfu_bound=work.flops / peak,
        tokens_per_s=work.tokens / roofline.step_s,
        share_real_tokens=work.tokens / run.slots,
        explanation=explain(program, rows, plan.num_chips) if explained else None,
    )


# --------------------------------------------------------------------------- what would fit


def _too_big(
    plan: Plan, config, topology: Topology, run: AbstractRun, message: str, advised: bool
) -> Plan:
    state_bytes = sum(plan.bytes_per_chip.values())
    saved = shard_bytes(saved_activations(run))
    kinds = plan.bytes_per_chip | {"saved for the backward pass (as written)": saved}
    match = _EXCEEDS.search(message)
    needed = ""
    if match:
        number, unit = match[1] or match[3], match[2] or match[4]
        needed = f" the compiler needs {float(number) * _UNITS[unit] / 1e9:.1f} GB;"
    if state_bytes > plan.available_bytes:
        part = max(plan.bytes_per_chip, key=plan.bytes_per_chip.get)
        remedy = "spread them over chips with mesh.tensor or mesh.fsdp"
    else:
        part, remedy = "activations", "use memory.remat, memory.encode_chunks or mesh.tensor"
    problem = f"{part} are too big;{needed} {remedy}"
    return dataclasses.replace(
        plan,
        bytes_per_chip=kinds,
        problem=problem,
        suggestions=tuple(suggest(config, topology)) if advised else (),
    )
