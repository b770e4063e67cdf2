"""A run's start, as every host of a slice would make it: what they feed, and why they would not."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lco_jax.cli.plan import main
from lco_jax.config import (
    PREVIOUS_STAGE,
    Generative,
    JsonlSource,
    Memory,
    MeshConfig,
    ModelRef,
    Stage,
    Stages,
)
from lco_jax.config.io import to_json
from lco_jax.plan import rehearsal
from lco_jax.plan.feeding import Feed, find_faults
from lco_jax.plan.rehearsal import rehearse
from lco_jax.plan.rehearsal_table import describe, ranges
from lco_jax.plan.torus import torus_devices
from lco_jax.runtime.processes import shares_of
from tests import runs, tiny

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Real data with images, a tiny base, and a mesh that takes whatever the slice has."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2_5_vl", num_layers=1)
    triplets = runs.write_media_triplets(folder / "triplets.jsonl", count=96)
    return runs.make_config(
        folder, triplets, mesh=MeshConfig(-1), memory=Memory(row_tokens=(128, 2048))
    )


def on_slice(config, name="v5e:4x4", workdir="gs://bucket/run", **changes):
    return rehearse(config, name, torus_devices(name), workdir, **changes)


def with_data(config, **changes):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


@pytest.mark.parametrize("tensor", (1, 2))
def test_every_host_feeds_its_share(config, tensor):
    config = dataclasses.replace(config, mesh=MeshConfig(-1, 1, tensor))
    found = on_slice(config)
    assert found.succeeded, describe(found)
    assert not found.assumed
    assert found.num_steps == config.num_steps
    assert [host.number for host in found.hosts] == [0, 1, 2, 3]
    assert len(found.shapes) == rehearsal.NUM_STEPS
    assert found.shapes[0].media.patch_rows
    if tensor == 1:
        for shape, full, *tokens in zip(
            found.shapes, found.fullness, *(host.tokens for host in found.hosts), strict=True
        ):
            slots = 16 * shape.rows * shape.row_tokens
            assert full.tokens == pytest.approx(sum(tokens) / slots)
            assert 0 < full.patches <= 1
    held = {shard for host in found.hosts for shard in host.shards}
    assert held == set(range(16 // tensor))
    for host in found.hosts:
        assert host.examples == len(host.shards) * tensor
        assert all(host.items) and all(host.tokens)
    if tensor == 1:
        assert sum(host.examples for host in found.hosts) == config.data.batch_size
    said = describe(found)
    assert "All 4 hosts would start" in said
    assert "checkpoints/" in said
    assert f"{found.fullness[0].tokens:.0%} of tokens and " in said


def test_a_wrong_share_is_found(config, monkeypatch):
    def contiguous(mesh):
        """The rule that pods have refused: host 0 also takes what host 1 has."""
        shares = dict(shares_of(mesh))
        return shares | {0: dataclasses.replace(shares[1])}

    monkeypatch.setattr(rehearsal, "shares_of", contiguous)
    found = on_slice(config)
    assert not found.succeeded
    assert any("no host feeds data shards" in fault for fault in found.faults)
    assert any("are never fed" in fault for fault in found.faults)


def test_faults_have_names():
    def feed(*items):
        return Feed(frozenset(items), str(items))

    good = {0: {0: feed(1, 2)}, 1: {1: feed(3, 4)}}
    assert not find_faults(good, num_shards=2, batch_size=2, roles=2)
    found = find_faults({0: {0: feed(1, 2)}, 1: {0: feed(1), 1: feed(2, 7)}}, 3, 3, 2)
    assert found == [
        "no host feeds data shards 2",
        "hosts 0 and 1 feed data shard 0 other items",
        "items 2 are fed twice, the first by data shards 0, 1",
        "examples 1, 2 of the batch are never fed",
        "examples 3 are beyond the batch of 3",
    ]


def test_a_host_that_cannot_read_its_examples_is_refused(config, tmp_path):
    lines = Path(config.data.sources[0].path).read_text().splitlines()
    broken = tmp_path / "triplets.jsonl"
    gone = {"text": "a", "image_path": str(tmp_path / "gone.png")}
    base = Path(config.data.sources[0].path).parent
    records = [json.loads(line) for line in lines]
    for record in records:
        for item in record.values():
            if isinstance(item, dict) and isinstance(item.get("image_path"), list):
                item["image_path"] = [str(base / name) for name in item["image_path"]]
    records[0]["anchor"] = gone
    broken.write_text("\n".join(map(json.dumps, records)))
    changed = with_data(config, sources=(JsonlSource(str(broken)),), batch_size=96)
    found = on_slice(changed, num_steps=1)
    assert not found.succeeded
    (refused,) = [host for host in found.hosts if host.refused]
    assert "gone.png" in refused.refused
    said = " ".join(describe(found).split())
    assert f"hosts {refused.number} are refused: " in said
    assert "1 of 4 hosts are refused, and any others wait for them" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": MeshConfig(8)}, "needs 8 devices, found 16"),
        ({"mesh": MeshConfig(-1, 1, 16)}, "mesh.tensor=16 does not divide attention heads"),
        ({"memory": Memory(encode_chunks=2)}, "batch_size=16 is less than encode_chunks=2"),
        ({"memory": Memory(row_tokens=(16,))}, "tokens does not fit into rows of 16"),
        ({"model": ModelRef("./nowhere")}, "no model folder, and its sizes are not known"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_would_stop_every_host(config, changes, message):
    found = on_slice(dataclasses.replace(config, **changes))
    assert not found.succeeded
    assert message in " ".join(describe(found).replace("│", " ").split())


def test_what_is_missing_is_assumed(config):
    changed = with_data(config, sources=(*config.data.sources, JsonlSource("nowhere.jsonl")))
    found = on_slice(changed)
    assert found.succeeded, describe(found)
    assert ["nowhere.jsonl is not on this machine" in text for text in found.assumed] == [True]
    assert "25% of them with an image of the largest size" in found.assumed[0]

    hub = ModelRef("Qwen/Qwen2.5-VL-3B-Instruct")
    found = on_slice(dataclasses.replace(changed, model=hub))
    assert found.succeeded, describe(found)
    assert "words and signs are counted as tokens" in found.assumed[0]


def test_a_folder_of_another_run(config, tmp_path):
    found = on_slice(config, workdir=str(tmp_path))
    assert any("all 4 hosts must see one folder" in note for note in found.notes)
    (tmp_path / "config.json").write_text("{}")
    found = on_slice(config, workdir=str(tmp_path))
    assert not found.succeeded
    assert "is not of a run; choose another --workdir" in found.faults[0]


def write_manifest(workdir, config):
    """As a run that has saved nothing yet leaves it."""
    workdir.mkdir(parents=True)
    content = {"format": "lco_jax run 1", "config": to_json(config), "git_revision": None}
    content |= {"data_fingerprint": "", "prompt": {}}
    (workdir / "config.json").write_text(json.dumps(content))


def test_a_run_goes_on(config, tmp_path):
    missing = with_data(config, sources=(JsonlSource("nowhere.jsonl"),))
    write_manifest(tmp_path / "run", missing)
    (tmp_path / "run" / "checkpoints" / "4").mkdir(parents=True)
    found = on_slice(missing, workdir=str(tmp_path / "run"))
    assert found.succeeded, describe(found)
    assert found.notes[-1].endswith("holds this run: it goes on after step 4")
    other = dataclasses.replace(missing, seed=7)
    assert "seed: 42 in the run, 7 now" in on_slice(other, workdir=str(tmp_path / "run")).faults[0]

    left = dataclasses.replace(missing, model=ModelRef("<run folder>/../read/model"))
    write_manifest(tmp_path / "stages" / "refine", left)
    found = on_slice(missing, workdir=str(tmp_path / "stages"), stage="refine", before="read")
    assert found.succeeded, describe(found)


def test_ranges():
    assert ranges((0, 1, 6, 15)) == "0-1, 6, 15"
    assert ranges(np.arange(4).tolist()) == "0-3"


# ------------------------------------------------------------------------------- the program


def write_config(folder, config):
    """A config file of one stage or of several."""
    stages = config.stages if isinstance(config, Stages) else (Stage("run", config),)
    content = {stage.name: to_json(stage.config) for stage in stages}
    file = folder / "config.py"
    file.write_text(
        "import json\nfrom lco_jax.config import Stage\nfrom lco_jax.config.io import from_json\n"
        f"FOUND = json.loads({json.dumps(content)!r})\n"
        "RUNS = {name: from_json(value) for name, value in FOUND.items()}\n"
        "def get_config():\n"
        "    if len(RUNS) == 1:\n        return RUNS['run']\n"
        "    return tuple(Stage(name, run) for name, run in RUNS.items())\n"
    )
    return file


def plan(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["launch/plan.py", *map(str, options)])
    return main()


def test_the_program_needs_no_compiler(config, tmp_path, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: name != "libtpu" and find_spec(name, *rest)
    )
    file = write_config(tmp_path, config)
    options = ("--config", file, "--topology", "v5e:2x4", "--num-slices", "2", "--rehearse")
    target = tmp_path / "rehearsal.json"
    assert plan(monkeypatch, *options, "--json", target, "--workdir", "gs://b/run") == 0
    content = json.loads(target.read_text())
    assert content["succeeded"]
    assert [host["slice_index"] for host in content["hosts"]] == [0, 0, 1, 1]
    assert plan(monkeypatch, *options, "--data.batch-size", "8") == 1
    assert "batch_size=8 is less than" in " ".join(capsys.readouterr().out.split())


def test_stages(config, tmp_path, monkeypatch, capsys):
    exchanges = runs.write_exchanges(tmp_path / "exchanges.jsonl")
    read = with_data(config, sources=(JsonlSource(str(exchanges)),))
    read = dataclasses.replace(read, objective=Generative(max_response_tokens=16))
    refine = dataclasses.replace(config, model=ModelRef(PREVIOUS_STAGE, towers=()))
    refine = with_data(refine, sources=(JsonlSource("nowhere.jsonl"),))
    file = write_config(tmp_path, Stages((Stage("read", read), Stage("refine", refine))))
    options = ("--config", file, "--topology", "v5p:2x2x2", "--rehearse")
    assert plan(monkeypatch, *options, "--workdir", tmp_path / "run") == 0
    # Without any white space: a long path is broken in its middle to fit the table.
    said = "".join(capsys.readouterr().out.replace("│", " ").split())
    assert "rehearsalofstageread" in said and "rehearsalofstagerefine" in said
    assert f"{tmp_path}/run/refine/checkpoints/" in said
    assert f"{tmp_path}/run/read/model,withthetokenizerof" in said
    assert plan(monkeypatch, *options, "--stage", "refine", "--workdir", "gs://bucket/run") == 1
    assert "stages hand over models in a folder of the file system" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ("lco_omni_7b_text", "lco_omni_7b_multimodal", "seadoc_high"))
def test_configs_of_the_paper(name, monkeypatch, capsys):
    options = ("--config", CONFIGS / f"{name}.py", "--topology", "v5p:4x4x4", "--rehearse")
    assert plan(monkeypatch, *options) == 0
    assert "All 16 hosts would start" in capsys.readouterr().out
