"""Compiled programs of an earlier start: used without tracing, and never in the wrong place."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.data.records import Item
from lco_jax.embed import encoder
from lco_jax.embed.embedder import Embedder
from lco_jax.runtime import kept_programs
from lco_jax.runtime.kept_programs import KeptPrograms
from tests import tiny


@pytest.fixture
def folder(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "compiled"))
    return tmp_path / "compiled" / "lco_jax_programs"


def double(tree: dict) -> jax.Array:
    return tree["x"] * 2


def untraced(tree: dict) -> jax.Array:
    raise AssertionError("traced")


def start(function=double, description: str = "double") -> KeptPrograms:
    """As another start of the program has it."""
    return KeptPrograms(jax.jit(function), lambda: description)


def tree(size: int = 3, dtype=jnp.float32) -> dict:
    return {"x": jnp.arange(size, dtype=dtype)}


def test_another_start_traces_nothing(folder):
    np.testing.assert_array_equal(start()(tree()), [0, 2, 4])
    again = start(untraced)
    for _ in range(2):
        np.testing.assert_array_equal(again(tree()), [0, 2, 4])
    assert again.num_programs == 1


@pytest.mark.parametrize(
    "arguments", [tree(4), tree(dtype=jnp.int32), {"x": jnp.arange(3.0), "y": jnp.zeros(1)}]
)
def test_other_arguments_are_another_program(folder, arguments):
    start()(tree())
    with pytest.raises(AssertionError, match="traced"):
        start(untraced)(arguments)


def test_what_the_function_computes_with_counts(folder):
    start()(tree())
    with pytest.raises(AssertionError, match="traced"):
        start(untraced, "another model")(tree())


@pytest.mark.parametrize("what", ["code", "settings", "processor"])
def test_another_code_or_machine_has_its_own(folder, monkeypatch, what):
    start()(tree())
    if what == "code":
        monkeypatch.setattr(kept_programs, "code_digest", lambda: "other")
    elif what == "processor":
        monkeypatch.setattr(kept_programs, "_cpu_features", lambda: "flags: fpu")
    with jax.default_matmul_precision("default" if what == "settings" else "highest"):
        if what == "settings":
            assert jax.config.jax_default_matmul_precision == "default"
        with pytest.raises(AssertionError, match="traced"):
            start(untraced)(tree())


def test_shards_of_a_mesh(folder):
    mesh = jax.make_mesh((8, 1, 1), ("data", "fsdp", "tensor"))
    with jax.set_mesh(mesh):
        sharded = {"x": jax.device_put(jnp.arange(16.0), jax.P("data"))}
        first = start()(sharded)
        found = start(untraced)(sharded)
        assert found.sharding == first.sharding
        np.testing.assert_array_equal(found, np.arange(16) * 2)
        with pytest.raises(AssertionError, match="traced"):
            start(untraced)({"x": jnp.arange(16.0)})


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_told_and_written_anew(folder, caplog, damage):
    start()(tree())
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"flipped": content, "cut": content[:99], "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, "lco_jax"):
        np.testing.assert_array_equal(start()(tree()), [0, 2, 4])
    assert str(file) in caplog.text
    np.testing.assert_array_equal(start(untraced)(tree()), [0, 2, 4])


def test_what_jax_has_kept_can_be_kept(folder):
    """A program of JAX's own cache lacks functions once it is written to a file again."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    spread = jax.jit(lambda x: jnp.concatenate([jnp.sin(x["x"]), x["x"][::-1]]).reshape(-1, 2))
    expected = spread(tree())
    KeptPrograms(spread, lambda: "spread")(tree())
    np.testing.assert_array_equal(start(untraced, "spread")(tree()), expected)


def test_unused_files_go(folder, monkeypatch):
    start()(tree())
    monkeypatch.setattr(kept_programs, "_UNUSED_DAYS", -1)
    start()(tree(4))
    assert not list(folder.iterdir())


def test_without_a_folder_it_is_the_jitted_function():
    jax.config.update("jax_compilation_cache_dir", None)
    kept = start()
    np.testing.assert_array_equal(kept(tree()), [0, 2, 4])
    assert kept.num_programs == 1


def test_vectors_are_the_same(folder, tmp_path):
    checkpoint = tiny.write(tmp_path / "model", "qwen2").folder
    items = [Item(text="a small cat"), Item(text="a large dog " * 30)]

    def vectors():
        encoder._compiled.cache_clear()
        return Embedder(str(checkpoint), device="cpu").encode(items)

    first = vectors()
    assert list(folder.iterdir())
    np.testing.assert_array_equal(vectors(), first)
    jax.config.update("jax_compilation_cache_dir", None)
    np.testing.assert_array_equal(vectors(), first)
