"""What the host does on the device between two steps, as a trace of the profiler shows it."""

import collections
import dataclasses

import jax
import pytest
from jax.profiler import ProfileData

from lco_jax.runtime import processes
from lco_jax.train import progress
from lco_jax.train.loop import train
from tests import runs, tiny
from tests.meshes import one_device as one_device

pytestmark = pytest.mark.usefixtures("one_device")

TRACED = (4, 6)
STEPS = TRACED[1] - TRACED[0] + 1


def test_a_step_is_one_program_and_one_copy_of_each_array(tmp_path, monkeypatch):
    """Nothing is computed eagerly in between, such as the learning rate: the host would wait."""
    tiny.write(tmp_path / "base", num_layers=1)
    triplets = runs.write_triplets(tmp_path / "triplets.jsonl")
    config = runs.make_config(tmp_path / "base", triplets, num_steps=8)
    config = dataclasses.replace(
        config,
        logging=dataclasses.replace(config.logging, profile=TRACED),
        # One shape for all steps: while another program is compiled, the profiler sees its parts.
        memory=dataclasses.replace(config.memory, row_tokens=(64,), least_shape=(64, 0, 0)),
    )
    arrays = _count_leaves(monkeypatch, processes, "to_global", 1)
    metrics = _count_leaves(monkeypatch, progress, "check_finite", 1)
    assert train(config, str(tmp_path / "run")).metrics["learning_rate"] > 0

    events = _events(next((tmp_path / "run" / "profile").glob("**/*.xplane.pb")))
    assert {name for name in events if name.startswith("PjitFunction")} == {"PjitFunction(step)"}
    assert events["CommonPjRtLoadedExecutable::ExecuteHelperOnSingleDevice"] == STEPS
    assert events["DevicePutWithSharding"] == STEPS * arrays[0] and len(set(arrays)) == 1
    assert events["np.asarray(jax.Array)"] == STEPS * metrics[0] and len(set(metrics)) == 1


def _count_leaves(monkeypatch, module, name: str, place: int) -> list[int]:
    """The number of arrays in an argument of each call of a function."""
    counts, function = [], getattr(module, name)

    def counted(*arguments):
        counts.append(len(jax.tree.leaves(arguments[place])))
        return function(*arguments)

    monkeypatch.setattr(module, name, counted)
    return counts


def _events(file) -> collections.Counter[str]:
    profile = ProfileData.from_file(str(file))
    return collections.Counter(
        event.name for plane in profile.planes for line in plane.lines for event in line.events
    )
