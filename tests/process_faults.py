"""What may happen to a process of a run; called in that process before training."""

import json
import os
import signal
import time
from pathlib import Path

from orbax.checkpoint import v1 as ocp

from lco_jax.data.encode.feature_cache import FeatureCache
from lco_jax.data.encode.processor import Processor
from lco_jax.data.records import Item
from lco_jax.data.sources import roles
from lco_jax.embed import embed_file, encoder
from lco_jax.objectives.loaders import ContrastiveLoader
from lco_jax.train import known_features


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


def _say(line):
    """One write: media are read by several threads, whose lines would mix otherwise."""
    os.write(1, f"{line}\n".encode())


def _say_what_is_read(options):
    """Small pieces; each process says what it parses and which media it reads."""
    embed_file._PIECE = 24
    parse, read = roles._PARSE[Item], Processor.read_medium

    def say_parsed(value, folder):
        _say(f"PARSED {json.dumps(value)}")
        return parse(value, folder)

    def say_read(self, kind, source):
        _say(f"READ {Path(source).name}")
        return read(self, kind, source)

    roles._PARSE[Item], Processor.read_medium = say_parsed, say_read


def _own_cache(options):
    """A feature cache that is not shared: each process has a folder of its own."""
    original = FeatureCache.__init__

    def init(self, folder, *arguments):
        original(self, f"{folder}/{options['rank']}", *arguments)

    FeatureCache.__init__ = init
    known_features._PATIENCE_S = 1


def _kill_embedding(options):
    """The last process dies when a part of the vectors is written."""
    _say_what_is_read(options)
    if options["rank"] != options["count"] - 1:
        return
    collect = encoder._Collector.collect
    output = options["arguments"][options["arguments"].index("--output") + 1]
    note = Path(f"{output}.partial") / "note.json"

    def collect_and_die(self, parts):
        for piece in collect(self, parts):
            yield piece
            while not note.exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)

    encoder._Collector.collect = collect_and_die


FAULTS = {
    "none": lambda options: None,
    "kill": _kill,
    "terminate": _terminate,
    "unreadable": _fail_to_read,
    "say": _say_what_is_read,
    "own cache": _own_cache,
    "kill embedding": _kill_embedding,
}
