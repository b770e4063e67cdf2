"""Damage to the files of checkpoints, and what is restored then; for processes of their own."""

import hashlib
import logging
import shutil
from pathlib import Path

import numpy as np

KINDS = ("byte", "block", "cut", "empty", "delete", "grow")


def damage(folder: Path, rng: np.random.Generator) -> str:
    """Change one of the files in a folder; what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file, kind = files[rng.integers(len(files))], KINDS[rng.integers(len(KINDS))]
    content = bytearray(file.read_bytes())
    place = int(rng.integers(max(len(content), 1)))
    match kind:
        case "byte" if content:
            content[place] ^= int(rng.integers(1, 256))
        case "block":
            content[place : place + 64] = rng.bytes(len(content[place : place + 64]))
        case "cut":
            del content[place:]
        case "grow":
            content[place:place] = rng.bytes(16)
        case _:
            content.clear()
    if kind == "delete":
        file.unlink()
    else:
        file.write_bytes(content)
    return f"{kind} at {place} of {file.relative_to(folder.parent)}"


def restore_damaged(workdir: Path, scratch: Path, seeds: range) -> list[tuple[int, str, str]]:
    """For each seed what became of a damaged copy of the checkpoints of a run: `newest`, `earlier`,
    `refused`, or what is bad about it, such as other values than were saved.
    """
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), devices=jax.devices()[:1])
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    with jax.set_mesh(mesh):
        shapes, config = _shapes_of(workdir)
        names = sorted((path.name for path in (workdir / "checkpoints").iterdir()), key=int)
        expected = {name: _saved(workdir, config, shapes, int(name)) for name in names}
        outcomes = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            copy = scratch / str(seed)
            shutil.copytree(workdir, copy)
            newest, earlier = (copy / "checkpoints" / name for name in names[::-1])
            done = damage(newest, rng)
            both = rng.random() < 0.1
            if both:
                done += f", {damage(earlier, rng)}"
            outcomes.append((seed, done, _outcome(copy, config, shapes, expected, both)))
            with (scratch / "restored").open("a") as file:
                file.write(f"{outcomes[-1][-1].replace(' ', '_')}\n")
            shutil.rmtree(copy)
    return outcomes


def _shapes_of(workdir: Path):
    from lco_jax.models.config import read_config
    from lco_jax.models.describe import describe_model
    from lco_jax.train.manifest import read_manifest
    from lco_jax.train.optimizer import make_optimizer, make_schedule
    from lco_jax.train.setup import state_shapes

    config = read_manifest(str(workdir)).config
    model = describe_model(config.model, read_config(Path(config.model.path)), with_head=False)
    schedule = make_schedule(config.optimizer, config.num_steps)
    optimizer = make_optimizer(config.optimizer, schedule, config.model.trainable)
    return state_shapes(model, optimizer), config


def _saved(workdir: Path, config, shapes, step: int | None = None) -> str:
    """A digest of all that a checkpoint gives back, made of the bytes themselves."""
    import jax

    from lco_jax.train.checkpoint import Checkpoints

    checkpoints = Checkpoints(str(workdir), config.checkpoint)
    try:
        state, position = checkpoints.restore(shapes, step)
    finally:
        checkpoints.close()
    digest = hashlib.sha256(repr(sorted(position.items())).encode())
    for leaf in jax.tree.leaves((state.step, state.trainable, state.opt_state)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _outcome(copy: Path, config, shapes, expected: dict[str, str], both: bool) -> str:
    from lco_jax.train.checkpoint import CheckpointError

    try:
        found = _saved(copy, config, shapes)
    except CheckpointError as error:
        named = str(copy / "checkpoints") in str(error)
        return "refused" if both and named else f"needlessly refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    kinds = dict(zip(expected.values(), ("earlier", "newest"), strict=True))
    return kinds.get(found, "other values than were saved")


def all_good(outcomes: list[tuple[int, str, str]]) -> bool:
    return all(kind in ("newest", "earlier", "refused") for _, _, kind in outcomes)
