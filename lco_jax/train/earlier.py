"""What a run was before it goes on: other lengths, other settings of bad media, other code."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from lco_jax.config import TrainConfig
from lco_jax.config.io import ON_ERROR
from lco_jax.runtime.code_digest import code_digest
from lco_jax.train.manifest import is_run_folder, read_manifest, versions

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")


def earlier_lengths(
    workdir: str, config: TrainConfig, steps_per_epoch: int, reached: Callable[[], int]
) -> tuple[tuple[int, int], ...]:
    """The lengths that the run in `workdir` had before, if it goes on with another one.

    Args:
        reached: tells after how many steps it goes on; it is asked if the length has changed.

    Raises:
        ValueError: it has taken more steps than it is to have.
    """
    if not is_run_folder(workdir):
        return ()
    old = read_manifest(workdir)
    before, now = (
        manifest.num_steps(steps_per_epoch) for manifest in (old, replace(old, config=config))
    )
    if now == before:
        return old.earlier
    step = reached()
    if now < step:
        raise ValueError(
            f"num_steps={now} is less than the {step} steps that the run in {workdir} has taken; "
            f"give at least {step}, or choose another --workdir to train again"
        )
    if not step:
        return ()
    log.info(
        "the run goes on to %d steps instead of %d: from step %d on, the learning rate is that of "
        "a run of %d steps",
        *(now, before, step, now),
    )
    return _noted(old.earlier, step, before)


def earlier_on_error(
    workdir: str, config: TrainConfig, reached: Callable[[], int]
) -> tuple[tuple[int, str], ...]:
    """What `data.media.on_error` was before in the run in `workdir`, as `earlier_lengths`."""
    if not is_run_folder(workdir):
        return ()
    old = read_manifest(workdir)
    before, now = old.config.data.media.on_error, config.data.media.on_error
    if before == now:
        return old.earlier_on_error
    step = reached()
    log.info("from step %d on, %s is %s instead of %s", step, ON_ERROR, now, before)
    return _noted(old.earlier_on_error, step, before)


def earlier_code(workdir: str, reached: Callable[[], int]) -> tuple[tuple[int, str], ...]:
    """The code that took the steps of the run in `workdir` before, if it goes on with another one:
    until which step, and its digest. A run that has taken steps is not refused for it, since a
    repair could never reach it; it is told what to install for the very same numbers.
    """
    if not is_run_folder(workdir):
        return ()
    old = read_manifest(workdir)
    if old.code == code_digest():
        return old.earlier_code
    step = reached()
    if not step:
        return ()
    now = versions()
    libraries = [
        f"{name} {version} (now {now.get(name)})"
        for name, version in old.versions.items()
        if now.get(name) != version
    ]
    log.warning(
        "the first %d steps of the run in %s were taken by other code (digest %s, now %s): the "
        "next ones may differ in their last digits, or by what was repaired. For the very same "
        "numbers, go on with revision %s%s",
        *(step, workdir, old.code or "of an earlier revision", code_digest()),
        *(old.git_revision or "of that time", "".join(f", {text}" for text in libraries)),
    )
    return _noted(old.earlier_code, step, old.code or "")


def _noted(
    earlier: Iterable[tuple[int, _Value]], step: int, before: _Value
) -> tuple[tuple[int, _Value], ...]:
    """What was before, until which step, in a run that goes on after `step`."""
    return (*((min(until, step), value) for until, value in earlier), (step, before))
