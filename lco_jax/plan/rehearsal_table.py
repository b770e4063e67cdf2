"""A rehearsal as tables for the console."""

import io
import itertools
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from lco_jax.data.pack.batch import Shape
from lco_jax.plan.abstract import TABLE_WIDTH, text_table
from lco_jax.plan.feeding import Fullness
from lco_jax.plan.rehearsal import Host, Rehearsal


def describe(found: Rehearsal, title: str = "rehearsal") -> str:
    """What is common to all hosts, a row for each host, and the verdict."""
    console = Console(file=io.StringIO(), width=TABLE_WIDTH)
    if found.hosts:
        console.print(_host_table(found))
    for reason in dict.fromkeys(host.refused for host in found.hosts if host.refused):
        stopped = [host.number for host in found.hosts if host.refused == reason]
        console.print(f"hosts {ranges(stopped)} are refused: {reason}", markup=False)
    for fault in found.faults:
        console.print(fault, markup=False)
    console.print(_verdict(found), markup=False)
    return text_table(title, _summary(found)) + console.file.getvalue()


def _summary(found: Rehearsal) -> Iterator[tuple[str, str]]:
    slices = f"{found.num_slices} x " if found.num_slices > 1 else ""
    chips = sum(len(host.chips) for host in found.hosts)
    yield "slice", f"{slices}{found.topology}: {chips} chips, {len(found.hosts)} hosts"
    yield "mesh", " x ".join(f"{axis} {size}" for axis, size in found.mesh.items())
    yield "batch", f"{found.batch_size} examples"
    if found.num_steps is not None:
        yield "steps of the run", f"{found.num_steps:,}"
    for number, (shape, full) in enumerate(zip(found.shapes, found.fullness, strict=True)):
        yield f"step {number}, on each data shard", describe_shape(shape)
        yield f"step {number}, of all shards", describe_fullness(full)
    yield from (("assumed", text) for text in found.assumed)
    yield from (("every host reads", text) for text in found.reads)
    yield from (("written by", text) for text in found.writes)
    yield from (("note", text) for text in found.notes)
    yield "rehearsed", f"{len(found.shapes)} steps in {found.seconds:.0f} s"


def describe_shape(shape: Shape) -> str:
    """The size of what each data shard takes of a chunk."""
    media = shape.media
    parts = [f"{shape.rows} rows of {shape.row_tokens} tokens"]
    if media.patch_rows:
        parts.append(f"{media.patch_rows} rows of {media.frame_row} patches")
    if media.audio_chunks:
        parts.append(f"{media.audio_chunks} chunks of audio")
    return ", ".join(parts)


def describe_fullness(found: Fullness) -> str:
    """How much of a batch is real; the rest is computed for nothing."""
    parts = [f"{found.tokens:.0%} of tokens"]
    if found.patches is not None:
        parts.append(f"{found.patches:.0%} of patches")
    return f"{' and '.join(parts)} are real"


def _host_table(found: Rehearsal) -> Table:
    several = found.num_slices > 1
    table = Table("host", *(["slice"] if several else []), "chips", "data shards")
    for name in ("examples", "items", "tokens", "unreadable"):
        table.add_column(name, justify="right")
    table.add_column("")
    for host in found.hosts:
        table.add_row(
            str(host.number),
            *([str(host.slice_index)] if several else []),
            _chips(host),
            ranges(host.shards),
            str(host.examples),
            *(", ".join(map(str, values)) for values in (host.items, host.tokens)),
            ", ".join(map(str, host.unreadable)) if any(host.unreadable) else "",
            "refused" if host.refused else "ok" if host.items else "",
        )
    return table


def _chips(host: Host) -> str:
    """The corners of the block of chips."""
    first, last = (",".join(map(str, chip)) for chip in (host.chips[0], host.chips[-1]))
    return f"{first} to {last}" if first != last else first


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, those in a row as `4-7`."""
    parts = []
    pairs = enumerate(numbers)
    for _, run in itertools.groupby(pairs, key=lambda pair: pair[1] - pair[0]):
        own = [number for _, number in run]
        parts.append(f"{own[0]}-{own[-1]}" if len(own) > 1 else str(own[0]))
    return ", ".join(parts)


def _verdict(found: Rehearsal) -> str:
    if found.succeeded:
        return (
            f"All {len(found.hosts)} hosts would start; every example of {len(found.shapes)} steps "
            "is fed once, by all hosts that hold its data shard."
        )
    refused = [host.number for host in found.hosts if host.refused]
    if refused:
        of_all = f"{len(refused)} of {len(found.hosts)} hosts are refused"
        return f"This run would not start: {of_all}, and any others wait for them."
    return "This run would not start as it should: see the faults above."
