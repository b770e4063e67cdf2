"""What may happen to a process of a run; called in that process before training."""

import os
import signal
import time
from pathlib import Path

from orbax.checkpoint import v1 as ocp

from lco_jax.objectives.loaders import ContrastiveLoader


def _before_step(options, step, act):
    """Call `act` on the last process when it has the batch of `step` but has not started it."""
    if options["rank"] != options["count"] - 1:
        return
    original = ContrastiveLoader.__iter__

    def iterate(self):
        for index, batch, stats in original(self):
            if index == step:
                act()
            yield index, batch, stats

    ContrastiveLoader.__iter__ = iterate


def _kill(options):
    def act():
        saved = Path(options["workdir"]) / "checkpoints" / "4"
        while not saved.is_dir():  # it is saved in the background
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

    # The others are in the step by then, and wait for this one in its first collective.
    _before_step(options, 5, act)


def _terminate(options):
    def act():
        os.kill(os.getpid(), signal.SIGTERM)
        # JAX looks for signals once a second and then tells all processes: the three steps that are
        # left would be over before.
        time.sleep(4)

    _before_step(options, 5, act)


def _fail_to_read(options):
    if options["rank"] != options["count"] - 1:
        return
    original = ocp.load_checkpointables
    newest = max(int(path.name) for path in (Path(options["workdir"]) / "checkpoints").iterdir())

    def load(folder, *arguments):
        if int(folder.name) == newest:
            raise OSError("a part of it is damaged")
        return original(folder, *arguments)

    ocp.load_checkpointables = load


FAULTS = {
    "none": lambda options: None,
    "kill": _kill,
    "terminate": _terminate,
    "unreadable": _fail_to_read,
}
