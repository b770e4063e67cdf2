"""The command line of `launch/plan.py`."""

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lco_jax.cli.configs import CONFIGS, load_config
from lco_jax.cli.exits import DONE, FAILED, program
from lco_jax.cli.parse import parse, typed
from lco_jax.config import PREVIOUS_STAGE, Stages, TrainConfig
from lco_jax.runtime.disks import replace_text


@dataclass(frozen=True)
class _Front:
    config: Path = CONFIGS / "lco_omni_7b_text.py"
    """Python file with `get_config()`, or the name of a shipped one."""
    topology: str | None = None
    """Generation and chips along each axis: `v5e:16x16`, `v5p:4x4x4`, `v6e:8x8`."""
    num_slices: int = 1
    """Slices of this shape, joined by the data centre's network."""
    stage: str | None = None
    """Of a config of several stages, the one to plan (none: each of them)."""
    json: Path | None = None
    """Also write the plan to this file; of several stages, by their names."""
    explain: bool = False
    """Also list the costliest instructions and their lines of the source."""
    search: int | None = None
    """Find the fastest sizes of the mesh, recomputation, encode chunks and row lengths: all are
    estimated, and this many of the most promising that fit are compiled."""
    rehearse: bool = False
    """Compile nothing: go through the start of the run as every host of the slice, up to the first
    batches. Exits with 1 if a host would stop or an item be fed twice or never."""
    workdir: str | None = None
    """With --rehearse: run folder (default: that of train.py)."""


@dataclass(frozen=True)
class _Arguments(_Front):
    """Compile a config's training step for TPUs that are not there, and say what it takes; or
    rehearse the start of the run on them.

    Exits with 1 if it does not fit, or would not start. Needs no TPU; plans need the extra `tpu`
    (libtpu).
    """

    topology: str = tyro.MISSING
    """Generation and chips along each axis: `v5e:16x16`, `v5p:4x4x4`, `v6e:8x8`."""
    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = tyro.MISSING


_EXAMPLES = (
    "--config lco_omni_7b_text --topology v5p:4x4x4 --data.batch-size 1056 --memory.remat none",
    "--config lco_omni_7b_multimodal --topology v6e:8x8 --data.batch-size 1056 --search 3",
    "--config lco_omni_7b_text --topology v5p:4x4x4 --workdir gs://BUCKET/run --rehearse",
)
_BRIEF = (
    "config",
    "topology",
    "num-slices",
    "stage",
    "json",
    "explain",
    "search",
    "rehearse",
    "workdir",
    "model.path",
    "data.batch-size",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "memory.remat",
    "memory.row-tokens",
)


@program
def main() -> int:
    """Parse, compile, print."""
    # Neither asks for what is missing nor for help: the second parse does, which knows all options.
    front, _ = tyro.cli(_Front, args=typed(), return_unknown_args=True, add_help=False)
    given = {name: value for name, value in vars(front).items() if value is not None}
    config = load_config(front.config)
    if front.search is not None and front.search < 1:
        raise ValueError(f"--search {front.search} compiles nothing; give at least 1")
    parsed = {
        name: parse(
            _Arguments,
            examples=_EXAMPLES,
            brief=_BRIEF,
            default=_Arguments(**given, run=run),
        )
        for name, run in _runs(config, front.stage).items()
    }
    import jax

    # The host must not look for a TPU of its own.
    jax.config.update("jax_platforms", "cpu")

    if front.rehearse:
        runs = {name: arguments.run for name, arguments in parsed.items()}
        return _rehearse(runs, front, _before(config))
    from lco_jax.plan import explain
    from lco_jax.plan.plan import describe, make_plan
    from lco_jax.plan.topologies import find_topology

    topology = find_topology(front.topology, front.num_slices)
    if front.search is not None:
        return _search({name: arguments.run for name, arguments in parsed.items()}, front, topology)
    plans = {}
    for name, arguments in parsed.items():
        plans[name] = make_plan(arguments.run, topology, explained=front.explain)
        print(describe(plans[name], f"plan of stage {name}" if name else "plan"))
        if plans[name].explanation:
            print(explain.describe(plans[name].explanation))
    _write(plans, front.json)
    return DONE if all(plan.fits for plan in plans.values()) else FAILED


def _search(runs: dict[str, TrainConfig], front: _Front, topology) -> int:
    from lco_jax.plan.search import describe, fastest, search

    best = {}
    for name, config in runs.items():
        found = list(search(config, topology, front.search))
        print(describe(found, _command(name)))
        if one := fastest(found):
            best[name] = one.plan
    _write(best, front.json)
    return DONE if len(best) == len(runs) else FAILED


def _command(stage: str) -> str:
    """What was typed, without what asks for a search."""
    words = [f"--stage {stage}"] if stage and "--stage" not in sys.argv else []
    given = iter(sys.argv[1:])
    for word in given:
        option, _, value = word.partition("=")
        if option in ("--search", "--json"):
            if not value:
                next(given, None)
        else:
            words.append(word)
    return " ".join(["python launch/plan.py", *words])


def _rehearse(runs: dict[str, TrainConfig], front: _Front, before: dict[str, str]) -> int:
    from lco_jax.plan.rehearsal import rehearse
    from lco_jax.plan.rehearsal_table import describe
    from lco_jax.plan.torus import slice_devices

    devices = slice_devices(front.topology, front.num_slices)
    workdir = front.workdir or str(Path("runs") / front.config.stem)
    found = {}
    for name, config in runs.items():
        found[name] = rehearse(
            config,
            front.topology,
            devices,
            workdir,
            stage=name,
            before=before.get(name),
            num_slices=front.num_slices,
        )
        print(describe(found[name], f"rehearsal of stage {name}" if name else "rehearsal"))
    _write(found, front.json)
    return DONE if all(rehearsal.succeeded for rehearsal in found.values()) else FAILED


def _before(config: TrainConfig | Stages) -> dict[str, str]:
    """For each stage that goes on with a model, the stage that leaves it."""
    stages = config.stages if isinstance(config, Stages) else ()
    return {
        stage.name: earlier.name
        for earlier, stage in itertools.pairwise(stages)
        if stage.config.model.path == PREVIOUS_STAGE
    }


def _write(found: dict[str, Any], file: Path | None) -> None:
    """Plans or rehearsals as JSON, by stage if there are several."""
    if file is None:
        return
    content = {name: one.to_json() for name, one in found.items()}
    alone = next(iter(content.values())) if len(content) == 1 else content
    replace_text(file, json.dumps(alone, indent=2) + "\n")


def _runs(config: TrainConfig | Stages, stage: str | None) -> dict[str, TrainConfig]:
    """What to compile, by stage: a stage that goes on with a model has the sizes of the first."""
    if isinstance(config, TrainConfig):
        if stage:
            raise ValueError(f"the config has no stages; leave out --stage {stage}")
        return {"": config}
    runs = {part.name: part.config for part in config.sized()}
    if stage is None:
        return runs
    if stage not in runs:
        raise ValueError(f"no stage {stage!r}; the config has {', '.join(runs)}")
    return {stage: runs[stage]}
