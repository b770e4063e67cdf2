"""Trains a tiny model by its program; called in processes of their own."""

import dataclasses
import json
import resource
import sys
from pathlib import Path
from typing import Any

from lco_jax.config import (
    CheckpointConfig,
    Evaluation,
    LoggingConfig,
    Lora,
    Memory,
    MeshConfig,
    ModelRef,
)
from lco_jax.config.io import to_json
from lco_jax.train.metrics import read_metrics
from tests import runs, tiny


def write_config(folder: Path) -> Path:
    """A config file of 6 steps, saved every second and evaluated every third, and all that it
    names.
    """
    tiny.write(folder / "model", num_layers=1)
    few = Lora(rank=4, alpha=8, targets=("query",))  # compilation is most of the time
    config = runs.make_config(
        folder / "model",
        runs.write_triplets(folder / "triplets.jsonl"),
        model=ModelRef(str(folder / "model"), trainable=few, dtype="float32"),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=2),
        memory=Memory(row_tokens=(128,)),
        mesh=MeshConfig(1, 1, 1),
        logging=LoggingConfig(progress=False, report=True, tensorboard=True),
        num_steps=6,
    )
    evaluation = Evaluation(config.data.sources[0], every_steps=3, num_pairs=8)
    config = dataclasses.replace(config, evaluation=evaluation)
    return write_file(folder / "config.py", to_json(config))


def write_file(file: Path, config: Any) -> Path:
    """A config file that gives what JSON values say."""
    file.write_text(
        "import json\nfrom lco_jax.config.io import from_json\n"
        f"get_config = lambda: from_json(json.loads({json.dumps(config)!r}))\n"
    )
    return file


def train(config: Path, workdir: Path, max_file_bytes: int | None = None) -> int:
    """`lco train` with a folder of compiled programs beside the config.

    Args:
        max_file_bytes: no file may become longer (None: as long as there is room).
    """
    import jax

    from lco_jax.cli.train import main

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_disable_most_optimizations", True)
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    cache = config.parent / "compiled"
    sys.argv = ["lco train", "--config", str(config), "--workdir", str(workdir)]
    sys.argv += ["--compilation-cache", str(cache)]
    return main.__wrapped__()  # errors are for the runner, which tells them as the program does


def results(workdir: Path) -> tuple[list[tuple[str, int, float]], dict]:
    """All that a run has measured, in order, and the checksums of its last checkpoint."""
    records = read_metrics(workdir / "metrics.jsonl")
    measured = [(x["kind"], x["step"], x.get("loss", x.get("mrr"))) for x in records]
    newest = max((workdir / "checkpoints").iterdir(), key=lambda folder: int(folder.name))
    about = json.loads((newest / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    return measured, about
