"""The start of a run as every host of a slice would make it, in one process and without a TPU.

Mesh, shares, sources and loaders are those of the program. Hosts agree on the shapes of a step in
two passes: what each would ask is collected first, and then each packs with the maximum. Weights,
the compiled step and the collectives have no part in it.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from lco_jax.config import TrainConfig
from lco_jax.data.loader import Loader
from lco_jax.data.pack.batch import Shape
from lco_jax.data.steps import LoadStats
from lco_jax.plan import rehearsal_paths as paths
from lco_jax.plan.feeding import Feed, Fullness, feeds_of, find_faults, fullness
from lco_jax.plan.stand_in import OnHand, ReadOnce, on_hand
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime.processes import Share, shares_of
from lco_jax.train.manifest import check_same_run, is_run_folder, read_manifest
from lco_jax.train.setup import Inputs, open_inputs
from lco_jax.train.stages import MODEL_FOLDER, check_folder

NUM_STEPS = 2
"""How many steps are rehearsed."""


@dataclass(frozen=True)
class Host:
    """A host of the slice, and its part of the run."""

    number: int
    slice_index: int
    chips: tuple[tuple[int, ...], ...]
    """Where they are in the torus."""
    shards: tuple[int, ...]
    """Data shards that it feeds."""
    examples: int = 0
    """Of a step, as the two below; none if the host is refused before it reads."""
    items: tuple[int, ...] = ()
    """Of each step that was rehearsed, as the two below."""
    tokens: tuple[int, ...] = ()
    unreadable: tuple[int, ...] = ()
    refused: str | None = None
    """Why the program would stop on this host."""


@dataclass(frozen=True)
class Rehearsal:
    """How the start of a run went."""

    topology: str
    num_slices: int
    mesh: dict[str, int]
    hosts: tuple[Host, ...]
    batch_size: int
    num_steps: int | None
    """Of the whole run (None: the data are not all here)."""
    shapes: tuple[Shape, ...]
    """On which all hosts agreed, of each step."""
    fullness: tuple[Fullness, ...]
    """Of the batch of each step."""
    assumed: tuple[str, ...]
    """What is not on this machine, and what was assumed instead."""
    reads: tuple[str, ...]
    """By every host."""
    writes: tuple[str, ...]
    notes: tuple[str, ...]
    faults: tuple[str, ...]
    """Of the whole run: why all hosts would stop, or what is fed twice or never."""
    seconds: float

    @property
    def succeeded(self) -> bool:
        """No host is refused, and every item is fed once."""
        return not self.faults and not any(host.refused for host in self.hosts)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self) | {"succeeded": self.succeeded}


def rehearse(
    config: TrainConfig,
    topology: str,
    devices: Sequence[Any],
    workdir: str,
    *,
    stage: str = "",
    before: str | None = None,
    num_slices: int = 1,
    num_steps: int = NUM_STEPS,
) -> Rehearsal:
    """The first steps of a run, as every host of `devices` would feed them.

    Args:
        devices: of the slice, as the compiler or a torus describes them.
        workdir: run folder; that of all stages, if there are several.
        stage: name of the stage (empty: there is but one).
        before: the stage whose model it starts from (None: from that of the config).
    """
    start_s = time.perf_counter()
    root, workdir = workdir, f"{workdir}/{stage}".rstrip("/")
    processes = sorted({device.process_index for device in devices})
    frame = Rehearsal(
        topology=topology,
        num_slices=num_slices,
        mesh={},
        hosts=(),
        batch_size=config.data.batch_size,
        num_steps=None,
        shapes=(),
        fullness=(),
        assumed=(),
        reads=paths.reads(config, before and f"{root}/{before}/{MODEL_FOLDER}"),
        writes=paths.writes(config, workdir),
        notes=paths.notes(workdir, len(processes)),
        faults=(),
        seconds=0.0,
    )
    try:
        if stage:
            check_folder(root)
        mesh = meshes.make_mesh(config.mesh, list(devices))
        frame = dataclasses.replace(frame, mesh=dict(mesh.shape), hosts=_hosts(mesh))
        with jax.set_mesh(mesh), on_hand(config, num_steps) as hand:
            frame = dataclasses.replace(frame, assumed=hand.assumed)
            declared = config if before is None else _with_model_of(workdir, config)
            frame = _run(frame, declared, hand, mesh, workdir, num_steps)
    except (ValueError, OSError) as error:
        frame = dataclasses.replace(frame, faults=(*frame.faults, f"all hosts stop: {error}"))
    return dataclasses.replace(frame, seconds=time.perf_counter() - start_s)


def _run(
    frame: Rehearsal,
    config: TrainConfig,
    hand: OnHand,
    mesh: jax.sharding.Mesh,
    workdir: str,
    num_steps: int,
) -> Rehearsal:
    inputs = _open(hand, mesh)
    if "://" not in workdir:
        fingerprint = inputs.loader.fingerprint if hand.has_all_data else None
        resumes = check_same_run(workdir, config, fingerprint)
        frame = dataclasses.replace(frame, notes=(*frame.notes, *paths.found(workdir, resumes)))
    if hand.has_all_data or config.num_steps:
        frame = dataclasses.replace(frame, num_steps=inputs.num_steps)
    num_steps = min(num_steps, inputs.num_steps)
    shares = shares_of(mesh)
    demands, refused = _demands(inputs.loader, set(shares.values()), num_steps)
    parts: dict[Share, _Part] = {}
    if not refused:
        # No host goes on alone: the others would wait for what it asks.
        by_step = zip(*demands.values(), strict=True)
        agreed = [tuple(map(max, zip(*asked, strict=True))) for asked in by_step]
        for share, asked in demands.items():
            try:
                parts[share] = _feed(inputs.loader, share, asked, agreed)
            except (ValueError, OSError) as error:
                refused[share] = str(error)
    hosts = tuple(
        _with_part(host, parts.get(shares[host.number]), refused.get(shares[host.number]))
        for host in frame.hosts
    )
    faults = frame.faults
    if not refused:
        faults += tuple(_faults(shares, parts, config.data.batch_size, num_steps))
    if len({tuple(own.shape for own in part.stats) for part in parts.values()}) > 1:
        faults += ("hosts do not agree on the shape of a step",)
    first = next(iter(parts.values()), None)
    shapes = tuple(own.shape for own in first.stats) if first else ()
    steps = zip(*(part.stats for part in parts.values()), strict=True)
    full = tuple(map(fullness, steps))
    return dataclasses.replace(frame, hosts=hosts, faults=faults, shapes=shapes, fullness=full)


def _with_model_of(workdir: str, config: TrainConfig) -> TrainConfig:
    """The config of a later stage as its run says it, if there is one: with the model before it."""
    if "://" in workdir or not is_run_folder(workdir):
        return config
    return dataclasses.replace(config, model=read_manifest(workdir).config.model)


def _open(hand: OnHand, mesh: jax.sharding.Mesh) -> Inputs:
    """What the first host opens."""
    image = ReadOnce(hand.image)
    inputs = open_inputs(hand.config, hand.folder, hand.sizes, mesh, known=image)
    image.fill(inputs.processor)
    return inputs


# ------------------------------------------------------------------------------ what hosts feed


@dataclass(frozen=True)
class _Part:
    """What hosts with one share feed, by step."""

    feeds: tuple[dict[int, Feed], ...]
    """By data shard."""
    stats: tuple[LoadStats, ...]
    roles: int
    """Items of an example."""


def _demands(
    loader: Loader, shares: set[Share], num_steps: int
) -> tuple[dict[Share, list[tuple[int, ...]]], dict[Share, str]]:
    """What each share asks of the shapes of the steps, and why others cannot be read.

    Hosts with the same share read the same: it is read once.
    """
    demands, refused = {}, {}
    for share in sorted(shares, key=lambda share: share.shards):
        own = loader.of_process(share.shards, share.groups, lambda _, values: values, num_steps)
        try:
            demands[share] = [own.demand_of(step) for step in range(num_steps)]
        except (ValueError, OSError) as error:
            refused[share] = str(error)
    return demands, refused


def _feed(
    loader: Loader,
    share: Share,
    asked: Sequence[tuple[int, ...]],
    agreed: Sequence[tuple[int, ...]],
) -> _Part:
    """What the loader of a host gives when all hosts have agreed."""
    answers = iter(zip(asked, agreed, strict=True))

    def agree(key: str, values: tuple[int, ...]) -> tuple[int, ...]:
        before, answer = next(answers)
        if values != before:
            raise ValueError(f"{key}: read again, the same examples ask {values}, not {before}")
        return answer

    feeds, stats = [], []
    for _, batch, own in loader.of_process(share.shards, share.groups, agree, len(agreed)):
        feeds.append(dict(zip(share.shards, feeds_of(batch, len(share.shards)), strict=True)))
        stats.append(own)
        roles = batch.pool.shape[1]
    return _Part(tuple(feeds), tuple(stats), roles)


def _hosts(mesh: jax.sharding.Mesh) -> tuple[Host, ...]:
    devices: dict[int, list[Any]] = {}
    for device in mesh.devices.flat:
        devices.setdefault(device.process_index, []).append(device)
    return tuple(
        Host(
            number=process,
            slice_index=getattr(devices[process][0], "slice_index", None) or 0,
            chips=tuple(sorted({tuple(device.coords) for device in devices[process]})),
            shards=share.shards,
        )
        for process, share in shares_of(mesh).items()
    )


def _with_part(host: Host, part: _Part | None, refused: str | None) -> Host:
    if part is None:
        return dataclasses.replace(host, refused=refused)
    items = [frozenset().union(*(feed.items for feed in step.values())) for step in part.feeds]
    return dataclasses.replace(
        host,
        examples=len({(item - 1) // part.roles for item in items[0]}),
        items=tuple(map(len, items)),
        tokens=tuple(stats.real_tokens for stats in part.stats),
        unreadable=tuple(stats.unreadable for stats in part.stats),
    )


def _faults(
    shares: Mapping[int, Share], parts: Mapping[Share, _Part], batch_size: int, num_steps: int
) -> list[str]:
    """What is fed twice, never, or otherwise by replicas, in each step."""
    num_shards = next(iter(shares.values())).num_shards
    return [
        f"step {step}: {fault}"
        for step in range(num_steps)
        for fault in find_faults(
            {host: parts[share].feeds[step] for host, share in shares.items()},
            num_shards,
            batch_size,
            next(iter(parts.values())).roles,
        )
    ]
