"""Programs on several real processes of this machine, joined by `jax.distributed`."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco_jax.config import TrainConfig
from lco_jax.config.io import to_json

ROOT = Path(__file__).parents[1]

TORUS = (0, 2, 4, 6, 1, 3, 5, 7)
"""An order of 8 devices, of which each of 4 processes has two that follow each other: in a mesh of
this order none holds neighbouring data shards, and the pairs of a tensor axis cross processes."""

_PROGRAM = """
import json, logging, sys
import jax
options = json.loads(sys.argv[1])
logging.basicConfig(level=logging.INFO, format="%(message)s")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", options["devices"] // options["count"])
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", options["cache"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
if options["count"] > 1:
    jax.distributed.initialize(
        options["address"], options["count"], options["rank"], heartbeat_timeout_seconds=30
    )
from lco_jax.runtime import mesh
if options["order"]:
    make_mesh, devices = mesh.make_mesh, jax.devices()
    mesh.make_mesh = lambda config: make_mesh(config, [devices[i] for i in options["order"]])
from lco_jax.cli.exits import program
from tests.process_faults import FAULTS
from tests.processes import PROGRAMS

@program
def main():
    FAULTS[options["fault"]](options)
    return PROGRAMS[options["program"]](options)

sys.exit(main())
"""


def _train(options: dict[str, Any]) -> int:
    from lco_jax.config.io import from_json
    from lco_jax.train.loop import train

    result = train(from_json(options["config"]), options["workdir"])
    print("DONE", result.step, flush=True)
    return 0 if result.stopped_by is None else 128 + result.stopped_by


def _embed(options: dict[str, Any]) -> int:
    from lco_jax.cli.embed import main

    sys.argv = ["launch/embed.py", *options["arguments"]]
    return main()


PROGRAMS = {"train": _train, "embed": _embed}


@dataclass
class Run:
    """The processes of one run."""

    processes: list[subprocess.Popen]

    def finish(self, timeout_s: float) -> list[tuple[int, str]]:
        """Exit code and output of each process.

        Raises:
            subprocess.TimeoutExpired: one of them has not ended in time.
        """
        try:
            said = [process.communicate(timeout=timeout_s) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        codes = [process.returncode for process in self.processes]
        return [(code, out + err) for code, (out, err) in zip(codes, said, strict=True)]


def check_lost(ends: Sequence[tuple[int, str]]) -> None:
    """Those that are left after one was killed say so, unless Gloo, which CPU devices use, ended
    the process while it was connecting to the lost one.
    """
    for code, said in ends:
        assert code in (1, -signal.SIGABRT), said[-3000:]
        assert code != 1 or "error: another process of this run has failed" in said, said[-3000:]


def start(
    config: TrainConfig,
    workdir: Path,
    count: int,
    fault: str = "none",
    *,
    devices: int = 4,
    order: Sequence[int] = (),
) -> Run:
    """Train on `count` processes with some devices among them.

    Args:
        fault: what happens to the last process.
        order: of the devices in the mesh (as they are, if it is empty).
    """
    options = {"config": to_json(config), "workdir": str(workdir)}
    cache = f"{config.model.path}/compilations"
    return _start("train", options, count, fault, devices, order, cache)


def start_embedding(
    arguments: Sequence[str],
    cache: Path,
    count: int,
    fault: str = "none",
    *,
    devices: int = 8,
    order: Sequence[int] = (),
) -> Run:
    """`launch/embed.py` on `count` processes, with what it is told on the command line.

    Args:
        cache: folder of compiled programs.
    """
    return _start("embed", {"arguments": arguments}, count, fault, devices, order, str(cache))


def _start(
    program: str,
    options: dict[str, Any],
    count: int,
    fault: str,
    devices: int,
    order: Sequence[int],
    cache: str,
) -> Run:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    options |= {
        "program": program,
        "count": count,
        "address": address,
        "fault": fault,
        "devices": devices,
        "order": order,
        "cache": cache,
    }
    return Run(
        [
            subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps({**options, "rank": rank})],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": "."},
            )
            for rank in range(count)
        ]
    )
