"""Two processes, joined by the options of the command line, agree before they begin, or say why
they do not."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from lco_jax.config import Evaluation, Lora, ModelRef
from lco_jax.config.io import to_json
from tests import runs, tiny
from tests.processes import ROOT

TIMEOUT_S = 400

_QUESTIONS = """
import json, sys
import jax
jax.config.update("jax_platforms", "cpu")
rank, port, workdir = int(sys.argv[1]), sys.argv[2], sys.argv[3]
from lco_jax.runtime import processes, start
from lco_jax.train.agreement import check_shared
start.start_cluster(start.Coordinator(f"127.0.0.1:{port}", 2, rank))
found = {}

def ask(name, act):
    try:
        found[name] = act()
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"

def together():
    with processes.all_or_none("test"):
        if rank == 1:
            raise ValueError("triplets.jsonl:2: not JSON")

ask("largest", lambda: [processes.agree_max("size", (rank, 5 - rank)) for _ in range(3)])
ask("same", lambda: processes.agree_same({"seed": "1", "mesh": "2"}))
ask("different", lambda: processes.agree_same({"seed": str(rank), "mesh": "2"}))
ask("together", together)
ask("shared", lambda: check_shared(workdir))
ask("own", lambda: check_shared(f"{workdir}/{rank}"))
processes.gather("end", "")
client = jax._src.distributed.global_state.client
client.wait_at_barrier("all have read", 60_000)
ask("left", lambda: client.key_value_dir_get("lco_jax/"))
client.wait_at_barrier("all have looked", 60_000)
print(json.dumps(found), flush=True)
"""


def two(commands, folders=(ROOT, ROOT), **environment):
    """Exit code, output and errors of two processes that are started together, each in a folder."""
    found = [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": "1",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
                **{name: value.format(rank=rank) for name, value in environment.items()},
            },
        )
        for rank, (command, folder) in enumerate(zip(commands, folders, strict=True))
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT_S) for process in found]
    finally:
        for process in found:
            process.kill()
    return [
        (process.returncode, out, " ".join(err.split()))
        for process, (out, err) in zip(found, said, strict=True)
    ]


def test_agreements(tmp_path, free_port):
    arguments = [str(free_port), str(tmp_path / "run")]
    ends = two([["-c", _QUESTIONS, str(rank), *arguments] for rank in range(2)])
    for rank, (code, out, err) in enumerate(ends):
        assert code == 0, err[-3000:]
        found = json.loads(out)
        assert found["largest"] == [[1, 5]] * 3
        assert found["same"] is found["shared"] is None
        assert "DisagreementError: process 0 on host" in found["different"]
        assert "seed: 0 on process 0, 1 on process 1" in found["different"]
        assert "mesh" not in found["different"]
        told = "triplets.jsonl:2: not JSON"
        assert found["together"].startswith("ValueError" if rank else "DisagreementError")
        assert found["together"].endswith(told)
        assert f"wrote into {tmp_path}/run/0, and process 1 on host" in found["own"]
        assert f"in {tmp_path}/run/1 does not see it" in found["own"]
        assert found["left"] == []
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run" / "0"]
    assert not any((tmp_path / "run" / "0").iterdir())


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny.write(folder, num_layers=1)
    data = runs.write_triplets(folder / "triplets.jsonl")
    few = Lora(rank=4, alpha=8, targets=("query",))  # compilation is most of the time
    model = ModelRef(str(folder), trainable=few, dtype="float32")
    config = runs.make_config(folder, data, model=model, num_steps=2)
    config = to_json(config) | {
        "mesh": {"type": "MeshConfig", "data": -1, "fsdp": 1, "tensor": 1},
        "evaluation": to_json(Evaluation(config.data.sources[0], num_pairs=4)),
    }
    file = folder / "tiny_config.py"
    file.write_text(
        "import json\nfrom lco_jax.config.io import from_json\n"
        f"get_config = lambda: from_json(json.loads({json.dumps(config)!r}))\n"
    )
    return file


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def train(config_file, workdir, *options):
    cache = config_file.parent / "compilations"
    fixed = ["--config", str(config_file), "--compilation-cache", str(cache)]
    return [str(ROOT / "launch/train.py"), *fixed, "--workdir", str(workdir), *options]


def meet(port, rank):
    place = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2"]
    return [*place, "--process-id", str(rank)]


def test_another_setting_on_one_host_is_refused_before_anything_is_computed(
    config_file, workdir, free_port
):
    commands = [
        train(config_file, workdir, *meet(free_port, rank), "--seed", str(7 + rank))
        for rank in range(2)
    ]
    for code, _, err in two(commands):
        assert code == 2, err[-3000:]
        assert "error: process 0 on host" in err
        assert "seed: 7 on process 0, 8 on process 1" in err
    assert list(workdir.iterdir()) == []


def test_other_data_and_weights_on_one_host_are_refused(config_file, free_port, tmp_path):
    """Under the same names: each process has a disk of its own."""
    disks = [tmp_path / "0", tmp_path / "1"]
    for seed, disk in enumerate(disks):
        disk.mkdir()
        tiny.write(disk / "model", num_layers=1, seed=seed)
        runs.write_triplets(disk / "triplets.jsonl", seed=seed)
    options = ["--model.path", "model", "--data.sources.0.path", "triplets.jsonl"]
    commands = [
        train(config_file, tmp_path / "run", *meet(free_port, rank), *options) for rank in range(2)
    ]
    for code, _, err in two(commands, disks):
        assert code == 2, err[-3000:]
        for fact in ("data", "base weights"):
            found = re.search(rf" {fact}: (\S.*?) on process 0, (.*?) on process 1", err)
            assert found and found[1] != found[2], err[-3000:]


def test_bad_data_on_one_host_stop_both_at_once(config_file, workdir, free_port):
    missing = ["--data.sources.0.path", "nowhere.jsonl"]
    commands = [
        train(config_file, workdir, *meet(free_port, rank), *(missing if rank else []))
        for rank in range(2)
    ]
    (first, _, told), (second, _, said) = two(commands)
    assert (first, second) == (2, 2), told[-3000:]
    assert "nowhere.jsonl: no such file" in said
    assert "error: process 1 on host" in told
    assert "nowhere.jsonl: no such file" in told


def test_two_processes_train_by_coordinator_and_go_on_by_slurm(config_file, workdir, free_port):
    ends = two([train(config_file, workdir, *meet(free_port, rank)) for rank in range(2)])
    for code, _, err in ends:
        assert code == 0, err[-3000:]
        assert "'data': 2" in err
    assert (workdir / "checkpoints" / "2").is_dir()
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": "{rank}",
        "SLURM_LOCALID": "{rank}",
        "JAX_COORDINATOR_PORT": str(free_port),
    }
    ends = two([train(config_file, workdir, "--distributed") for _ in range(2)], **slurm)
    for code, _, err in ends:
        assert code == 0, err[-3000:]
        assert "resumed after step 2" in err
        assert "'data': 2" in err


def test_two_processes_embed(config_file, free_port, tmp_path):
    (tmp_path / "items.jsonl").write_text('"a quick fox"\n"a lazy dog"\n"the market"\n')
    model = ["--model", str(config_file.parent), "--input", str(tmp_path / "items.jsonl")]
    command = ["launch/embed.py", *model, "--output", str(tmp_path / "vectors.npy")]
    for code, _, err in two([[*command, *meet(free_port, rank)] for rank in range(2)]):
        assert code == 0, err[-3000:]
    assert np.load(tmp_path / "vectors.npy").shape == (3, 32)
