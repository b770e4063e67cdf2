"""Runs on several real processes of this machine, joined by `jax.distributed`."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lco_jax.config import TrainConfig
from lco_jax.config.io import to_json

ROOT = Path(__file__).parents[1]

_PROGRAM = """
import json, logging, sys
import jax
options = json.loads(sys.argv[1])
logging.basicConfig(level=logging.INFO, format="%(message)s")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4 // options["count"])
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", options["cache"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
if options["count"] > 1:
    jax.distributed.initialize(
        options["address"], options["count"], options["rank"], heartbeat_timeout_seconds=30
    )
from lco_jax.cli.exits import program
from lco_jax.config.io import from_json
from lco_jax.train.loop import train
from tests.faults import FAULTS

@program
def main():
    FAULTS[options["fault"]](options)
    result = train(from_json(options["config"]), options["workdir"])
    print("DONE", result.step, flush=True)
    return 0 if result.stopped_by is None else 128 + result.stopped_by

sys.exit(main())
"""


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


def start(config: TrainConfig, workdir: Path, count: int, fault: str = "none") -> Run:
    """Train on `count` processes with 4 devices among them; `fault` happens on the last one."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    options = {
        "config": to_json(config),
        "workdir": str(workdir),
        "count": count,
        "address": address,
        "fault": fault,
        "cache": f"{config.model.path}/compilations",
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
