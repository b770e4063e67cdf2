"""What a run of a benchmark leaves: one line of JSON, from which pages take their figures."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any


def append_line(file: Path, benchmark: str, figures: dict[str, Any]) -> None:
    """Add a line to `file`, and its folder: what was run, of which revision, how many cores the
    machine has and how busy they were (load averages of 1, 5 and 15 minutes), and the figures.
    """
    from lco_jax.train.manifest import git_revision  # JAX stays out of torch's processes

    record = {
        "benchmark": benchmark,
        "command": shlex.join(["python", "-m", f"benchmarks.{benchmark}", *_options()]),
        "revision": git_revision(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **figures,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(record) + "\n")


def _options() -> list[str]:
    """Of this program, but for where the line goes."""
    options = [option for option in sys.argv[1:] if not option.startswith("--json=")]
    if "--json" in options:
        place = options.index("--json")
        del options[place : place + 2]
    return options
