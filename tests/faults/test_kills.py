"""kill -9 at random moments, also inside a save or an evaluation, changes nothing of a run."""

import dataclasses
import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from lco_jax.config import (
    PREVIOUS_STAGE,
    CheckpointConfig,
    DataConfig,
    Evaluation,
    Full,
    Generative,
    JsonlSource,
    LoggingConfig,
    Lora,
    Memory,
    ModelRef,
    Stage,
    Stages,
)
from lco_jax.config.io import to_json
from lco_jax.train.metrics import read_metrics
from tests import runs, tiny
from tests.faults import runner, training

STAGES = ("align", "refine")
KILLS = 20


def write_stages(folder: Path) -> Path:
    """A config of two stages, and all that it names: all weights on exchanges, then low-rank
    factors on triplets, evaluated every second step and saved at each.
    """
    tiny.write(folder / "model", num_layers=1, tied=False)
    triplets = runs.write_triplets(folder / "triplets.jsonl")
    exchanges = folder / "exchanges.jsonl"
    with exchanges.open("w") as file:
        for line in map(json.loads, triplets.read_text().splitlines()):
            pair = {"prompt": line["anchor"], "response": line["positive"]["text"]}
            file.write(json.dumps(pair) + "\n")
    refine = runs.make_config(
        folder / "model",
        triplets,
        model=ModelRef(PREVIOUS_STAGE, trainable=Lora(rank=4, alpha=8), dtype="float32"),
        data=DataConfig((JsonlSource(str(triplets)),), batch_size=8),
        memory=Memory(row_tokens=(128,)),
        checkpoint=CheckpointConfig(every_steps=1, keep_last=2),
        logging=LoggingConfig(progress=False, report=False, tensorboard=True),
        num_steps=8,
    )
    align = dataclasses.replace(
        refine,
        model=ModelRef(str(folder / "model"), trainable=Full(), dtype="float32"),
        data=DataConfig((JsonlSource(str(exchanges)),), batch_size=8),
        objective=Generative(),
        num_steps=4,
    )
    evaluation = Evaluation(refine.data.sources[0], every_steps=2, num_pairs=8)
    refine = dataclasses.replace(refine, evaluation=evaluation)
    stages = Stages((Stage("align", align), Stage("refine", refine)))
    return training.write_file(folder / "config.py", to_json(stages))


def train_and_die(config: Path, workdir: Path, event: int | None, delay_s: float) -> int:
    """Train; a while after so many files in `workdir` were opened, made or moved, kill -9.

    The events are told in `workdir/../events`.
    """
    seen = 0

    def notice(name: str, arguments: tuple) -> None:
        nonlocal seen
        if name not in ("open", "os.mkdir", "os.rename", "os.remove", "os.listdir"):
            return
        if not any(str(x).startswith(str(workdir)) for x in arguments if isinstance(x, str | Path)):
            return
        seen += 1
        if seen == event:
            threading.Thread(target=_die, args=(delay_s,), daemon=True).start()

    sys.addaudithook(notice)
    code = training.train(config, workdir)
    (workdir.parent / "events").write_text(str(seen))
    return code


def _die(delay_s: float) -> None:
    time.sleep(delay_s)
    os.kill(os.getpid(), signal.SIGKILL)


def run(config, workdir, event=None, delay_s=0.0):
    return runner.run(
        *(train_and_die, config, workdir, event, delay_s),
        names=[str(workdir)],
        limit_s=600,
        limit_bytes=8 << 30,
    )


def results(workdir):
    """All figures of both stages, their last checkpoints, and the models that they leave."""
    found = {}
    for stage in STAGES:
        found[stage], found[f"{stage} checkpoint"] = training.results(workdir / stage)
        model = (workdir / stage / "model" / "model.safetensors").read_bytes()
        found[f"{stage} model"] = hashlib.sha256(model).hexdigest()
    found["evaluations"] = [
        {name: value for name, value in record.items() if name != "time"}
        for record in read_metrics(workdir / "refine" / "metrics.jsonl")
        if record["kind"] == "eval"
    ]
    return found


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path):
    config = write_stages(tmp_path)
    undisturbed = tmp_path / "undisturbed" / "run"
    outcome = run(config, undisturbed)
    assert outcome.kind == "right", outcome
    expected = results(undisturbed)
    assert [step for kind, step, _ in expected["refine"] if kind == "train"] == list(range(1, 9))
    assert [record["step"] for record in expected["evaluations"]] == [0, 2, 4, 6, 8]
    num_events = int((undisturbed.parent / "events").read_text())
    chance, kills, runs_done = random.Random(0), 0, 0
    while kills < KILLS or runs_done < 1:
        workdir = tmp_path / f"killed_{runs_done}" / "run"
        while True:
            event = chance.randrange(1, num_events // 2) if kills < KILLS else None
            outcome = run(config, workdir, event, chance.choice((0.0, chance.uniform(0, 0.2))))
            if outcome.kind == "right":
                break
            assert outcome.kind == "killed" and outcome.said.startswith("SIGKILL"), outcome
            kills += 1
        runs_done += 1
        assert results(workdir) == expected
    print(f"{kills} kills in {runs_done} runs of {num_events} events: identical results")
