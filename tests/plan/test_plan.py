"""Programs compiled for TPUs that are not there, by their own compiler."""

import dataclasses
import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.loss_plan import WIDTH, compile_loss
from lco_jax.cli.configs import load_config
from lco_jax.cli.plan import _runs, main
from lco_jax.config import Lora, Memory, MeshConfig
from lco_jax.config.io import to_json
from lco_jax.nn.splash import attend_long
from lco_jax.plan import plan as plans
from lco_jax.plan import suggestions
from lco_jax.plan.hlo import Program
from lco_jax.plan.hlo_cost import matmul_flops
from lco_jax.plan.search import rank
from lco_jax.plan.topologies import find_topology
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime.axes import act_spec
from tests import runs, tiny

CONFIGS = Path(__file__).parents[2] / "configs"
PACKAGE = Path(__file__).parents[2] / "lco_jax"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[tpu]'"
)


@pytest.fixture(autouse=True)
def full_optimization():
    # The kernels of bfloat16 exist in one precision only.
    jax.config.update("jax_default_matmul_precision", None)
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_default_matmul_precision", "highest")


def on_slice(name, sizes, num_slices=1):
    return meshes.make_mesh(MeshConfig(*sizes), find_topology(name, num_slices).devices)


def array(letters, shape, dtype=jnp.float32):
    sharding = jax.NamedSharding(jax.sharding.get_mesh(), act_spec(letters))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


@pytest.mark.parametrize(
    "memory",
    [
        pytest.param(Memory(candidates="gathered", logit_chunks=64), marks=pytest.mark.slow),
        Memory(candidates="ring"),
    ],
    ids=["chunked", "ring"],
)
def test_chunked_and_ring_losses_take_an_eighth_at_most(memory):
    triplets = 65_536
    compiled = compile_loss(memory, triplets, find_topology("v5p:4x4x4").devices)
    # Less than the gathered loss, which holds all positives and negatives and their logits:
    # docs/plan.md has what it takes when it is compiled.
    candidates = 2 * triplets * WIDTH * 4
    assert compiled.memory_analysis().temp_size_in_bytes <= candidates / 8


def test_attention_of_long_rows_is_a_kernel():
    with jax.set_mesh(on_slice("v5e:2x4", (4, 1, 2))):
        heads = array("B S N H", (8, 1024, 28, 128), jnp.bfloat16)
        keys = array("B S K H", (8, 1024, 4, 128), jnp.bfloat16)
        segments = array("B S", (8, 1024), jnp.int32)
        one = jax.ShapeDtypeStruct((1, 14, 4, 128), jnp.bfloat16, sharding=jax.NamedSharding(
            jax.sharding.get_mesh(), jax.P(None, None, "tensor")))  # fmt: skip

        def total(heads, key, value, segments, preamble):
            return attend_long(heads, key, value, segments, preamble).astype(jnp.float32).sum()

        lowered = jax.jit(jax.grad(total, (0, 1, 2, 4))).lower(
            heads, keys, keys, segments, (one, one)
        )
        text = lowered.compile().as_text()
    assert text.count("tpu_custom_call") >= 3  # forward, queries, keys and values


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2_5_vl", num_layers=2)
    config = runs.make_config(folder, folder / "none.jsonl")
    model = dataclasses.replace(config.model, trainable=Lora(rank=4, dropout=0.0), towers=())
    config = dataclasses.replace(config, model=model, mesh=MeshConfig())
    file = folder / "config.py"
    file.write_text(
        "import json\nfrom lco_jax.config.io import from_json\n"
        f"get_config = lambda: from_json(json.loads({json.dumps(to_json(config))!r}))\n"
    )
    return file


def plan(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["launch/plan.py", *map(str, options)])
    return main()


def test_a_plan(config_file, tmp_path, monkeypatch, capsys):
    file = tmp_path / "plan.json"
    options = ("--config", config_file, "--topology", "v5e:2x4", "--json", file)
    assert plan(monkeypatch, *options) == 0
    found = json.loads(file.read_text())
    assert found["fits"]
    assert found["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert found["negatives_per_anchor"] == 31
    sizes = found["bytes_per_chip"]
    assert sizes["frozen weights"] < sizes["arguments in all"] < found["available_bytes"]
    # Moments of 8 shards, but for what 8 does not divide, and a counter.
    assert sizes["optimizer"] < sizes["trained weights"]
    assert found["roofline"]["step_s"] > 0
    assert 0 < found["mfu_bound"] < 1
    said = capsys.readouterr().out
    assert "all-gather of 8" in said
    assert re.search(r"flops per token .* = [\d.]+ N", said)


def test_weights_that_do_not_fit_are_named(monkeypatch, capsys):
    monkeypatch.setattr(suggestions, "_NUM_SUGGESTIONS", 1)  # each takes seconds
    options = ("--config", CONFIGS / "lco_vl_7b_text.py", "--topology", "v6e:2x4")
    options += ("--model.path", "Qwen/Qwen2.5-VL-32B-Instruct", "--memory.remat", "full")
    assert plan(monkeypatch, *options) == 1
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "frozen weights are too big" in said
    assert "--mesh.tensor 4" in said


def test_activations_that_do_not_fit_are_named(config_file, monkeypatch, capsys):
    class Step:
        def lower(self, *_):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
                "temporaries (16.89G) exceeds available HBM (15.75G)."
            )

    abstract = plans.abstract_run
    monkeypatch.setattr(
        plans, "abstract_run", lambda config: dataclasses.replace(abstract(config), step=Step())
    )
    assert plan(monkeypatch, "--config", config_file, "--topology", "v5e:2x4") == 1
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "activations are too big; the compiler needs 18.1 GB" in said
    assert "--memory.remat full" in said


def test_there_is_no_such_slice(config_file, monkeypatch, capsys):
    assert plan(monkeypatch, "--config", config_file, "--topology", "v5litepod-8") == 2
    assert "such as v5e:16x16" in capsys.readouterr().err


def test_a_search_that_compiles_nothing(config_file, monkeypatch, capsys):
    options = ("--config", config_file, "--topology", "v5e:2x4", "--search", 0)
    assert plan(monkeypatch, *options) == 2
    assert "--search 0 compiles nothing" in capsys.readouterr().err


def test_our_count_is_the_compilers_with_loops_counted():
    with jax.set_mesh(on_slice("v5e:2x2", (4, 1, 1))):
        x = array("B D", (1024, 512))
        weights = jax.ShapeDtypeStruct((6, 512, 512), jnp.float32, sharding=jax.NamedSharding(
            jax.sharding.get_mesh(), jax.P()))  # fmt: skip
        step = lambda x, w: (jnp.tanh(x @ w), None)  # noqa: E731
        compiled = jax.jit(lambda x, w: jax.lax.scan(step, x, w)[0]).lower(x, weights).compile()
    flops = matmul_flops(Program(compiled.as_text()))
    assert flops == 6 * 2 * (1024 // 4) * 512 * 512
    assert compiled.cost_analysis()["flops"] == pytest.approx(flops / 6, rel=0.05)


def test_stages_are_planned_with_the_sizes_of_the_first():
    runs_by_stage = _runs(load_config(CONFIGS / "seadoc_high.py"), None)
    assert list(runs_by_stage) == ["read", "refine"]
    assert {run.model.path for run in runs_by_stage.values()} == {"Qwen/Qwen2.5-VL-3B-Instruct"}
    assert list(_runs(load_config(CONFIGS / "seadoc_high.py"), "refine")) == ["refine"]


def test_there_is_no_such_stage(monkeypatch, capsys):
    options = ("--config", CONFIGS / "seadoc_high.py", "--topology", "v5e:2x4", "--stage", "write")
    assert plan(monkeypatch, *options) == 2
    assert "the config has read, refine" in capsys.readouterr().err


def test_a_plan_is_explained(config_file, tmp_path, monkeypatch, capsys):
    file = tmp_path / "plan.json"
    options = ("--config", config_file, "--topology", "v5e:2x4", "--json", file, "--explain")
    assert plan(monkeypatch, *options) == 0
    found = json.loads(file.read_text())["explanation"]
    assert list(found) == ["compute (FLOPs)", "memory (bytes)", "links (bytes sent)"]
    for items in found.values():
        shares = [item["share"] for item in items]
        assert shares == sorted(shares, reverse=True)
        assert 0.1 < sum(shares) <= 1
    flops = found["compute (FLOPs)"]
    assert any("nn/attention.py" in line for item in flops for line in item["source"])
    sources = [line for items in found.values() for item in items for line in item["source"]]
    assert all((PACKAGE / line.split(":")[0]).is_file() for line in sources)
    said = capsys.readouterr().out
    assert "nn/attention.py" in said


def test_a_search_names_the_fastest_that_fits(config_file, tmp_path, monkeypatch, capsys):
    file = tmp_path / "plan.json"
    options = ("--config", config_file, "--topology", "v5e:2x4", "--mesh.tensor", 2)
    assert plan(monkeypatch, *options, "--search", 1, "--json", file) == 0
    found = json.loads(file.read_text())
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    command = said.split("the fastest ")[1].split(" └")[0]
    words = command.replace("python launch/plan.py ", "").split()
    assert words[: len(options)] == list(map(str, options))
    assert "--search" not in words
    # The command gives that plan.
    again = tmp_path / "again.json"
    assert plan(monkeypatch, *words, "--json", again) == 0
    assert json.loads(again.read_text())["roofline"] == found["roofline"]


def test_settings_are_ranked_by_what_they_cost():
    config = load_config(CONFIGS / "lco_omni_7b_text.py")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=1056))
    found = rank(config, find_topology("v6e:8x8"))
    first = found[0]
    # The model and what its layers keep fit on a chip: nothing is sent, nothing computed twice.
    assert (first.config.mesh.tensor, first.config.mesh.fsdp) == (1, 1)
    assert first.config.memory.remat == "dots"
    assert first.config.memory.encode_chunks == 1
    steps = [one.estimate.step_s for one in found]
    assert all(one <= other + 1e-4 for one, other in itertools.pairwise(steps))
    (full,) = (one for one in found if one.options == "--mesh.data 64 --memory.remat full")
    assert full.estimate.num_bytes < first.estimate.num_bytes
    assert full.estimate.step_s > first.estimate.step_s
    # There a shard of every chip would have more idle slots, and its weights more to send.
    names = {one.config.mesh.tensor for one in rank(config, find_topology("v5e:16x16"))[:50]}
    assert 1 not in names
