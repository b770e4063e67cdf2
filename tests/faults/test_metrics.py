"""Metrics after kills: every step once, in order, and no part of a line."""

import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from lco_jax.train.metrics import MetricsWriter, read_evaluations, read_metrics


def write(workdir, start_step, records, tensorboard=False):
    """What a run records that goes on from `start_step`, and is then killed."""
    writer = MetricsWriter(str(workdir), start_step=start_step, tensorboard=tensorboard)
    for step, kind, value in records:
        writer.write(step, kind, {"loss" if kind == "train" else "mrr": value})
    return writer


def recorded(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert records == read_metrics(workdir / "metrics.jsonl")
    return [(x["step"], x["kind"], x.get("loss", x.get("mrr"))) for x in records]


FIRST = [(0, "eval", 0.1), (1, "train", 3.0), (2, "train", 2.0), (2, "eval", 0.2)]
CUTS = ['{"step": 3, "ki', '{"step": 3, "kind": "train", "loss": 1.0}\n{"st', "\0" * 40, '"text"\n']


@pytest.mark.parametrize("cut", ["", *CUTS])
def test_a_kill_before_the_first_checkpoint(cut, tmp_path):
    write(tmp_path, 0, FIRST)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(cut)
    write(tmp_path, 0, FIRST[1:])
    assert recorded(tmp_path) == FIRST


@pytest.mark.parametrize("cut", CUTS)
def test_a_kill_after_a_checkpoint(cut, tmp_path):
    write(tmp_path, 0, FIRST)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(cut)
    later = [(3, "train", 1.0), (4, "train", 0.5)]
    write(tmp_path, 2, later)
    assert recorded(tmp_path) == [*FIRST, *later]
    assert not list(tmp_path.glob("*.tmp"))


def test_an_evaluation_that_is_made_again_takes_the_place_of_the_first(tmp_path):
    write(tmp_path, 0, FIRST)
    write(tmp_path, 2, [(2, "eval", 0.3), (3, "train", 1.0)])
    assert recorded(tmp_path) == [*FIRST[:3], (2, "eval", 0.3), (3, "train", 1.0)]
    assert {step: x["mrr"] for step, x in read_evaluations(tmp_path).items()} == {0: 0.1, 2: 0.3}


def test_tensorboard_hides_what_is_taken_again(tmp_path):
    write(tmp_path, 0, FIRST, tensorboard=True).close()
    (first,) = events(tmp_path)
    scalars = [(x.step, v.tag, v.simple_value) for x in first for v in x.summary.value]
    assert scalars == [
        (0, "eval/mrr", pytest.approx(0.1)),
        (1, "train/loss", 3.0),
        (2, "train/loss", 2.0),
        (2, "eval/mrr", pytest.approx(0.2)),
    ]
    for file in (tmp_path / "tensorboard").iterdir():
        file.rename(file.with_name("earlier"))
    write(tmp_path, 1, [(2, "train", 2.0)], tensorboard=True).close()
    starts = [x.step for one in events(tmp_path) for x in one if x.HasField("session_log")]
    assert starts == [1, 2]
    assert {x.session_log.status for one in events(tmp_path) for x in one} >= {SessionLog.START}


def events(workdir):
    """The events of each file (length, its checksum, the event, its checksum)."""
    found = []
    for file in sorted((workdir / "tensorboard").iterdir()):
        content, place = file.read_bytes(), 0
        found.append([])
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            found[-1].append(Event.FromString(content[place + 12 : place + 12 + length]))
            place += length + 16
    return found
