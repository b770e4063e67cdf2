"""Checkpoints: damage is found, nothing that is not finite is saved, and errors let saves end."""

import collections
import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from lco_jax.config import CheckpointConfig, JsonlSource, Lora, Memory, ModelRef
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media.errors import MediaError
from lco_jax.data.sources.mixture import ExampleStream
from lco_jax.objectives.loaders import ContrastiveLoader
from lco_jax.train import update
from lco_jax.train.checkpoint import CheckpointError, Checkpoints
from lco_jax.train.finite import DivergedError, check_finite
from lco_jax.train.loop import train
from lco_jax.train.manifest import read_manifest
from lco_jax.train.restore import open_run
from lco_jax.train.update import TrainState
from tests import runs, tiny
from tests.faults import checkpoint_cases, runner
from tests.meshes import one_device as one_device

pytestmark = pytest.mark.usefixtures("one_device", "compiled_once")


@pytest.fixture(scope="module")
def compilations(tmp_path_factory):
    return tmp_path_factory.mktemp("compilations")


@pytest.fixture
def compiled_once(compilations):
    """Runs of this module share their programs."""
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(compilations))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny.write(folder, num_layers=1)
    return runs.make_config(
        folder,
        runs.write_triplets(folder / "triplets.jsonl"),
        model=ModelRef(str(folder), trainable=Lora(4, 8, targets=("query",)), dtype="float32"),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=2),
        memory=Memory(row_tokens=(128,)),  # one program
        num_steps=4,
    )


@pytest.fixture(scope="module")
def trained(config, one_device, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    train(config, str(workdir))
    return workdir


def saved(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


# ------------------------------------------------------------------------------------- damage


def fuzz(trained, scratch, seeds):
    """Pieces of 50 cases, each in a process of its own."""
    for start in range(seeds.start, seeds.stop, 50):
        piece = range(start, min(start + 50, seeds.stop))
        yield runner.run(
            *(checkpoint_cases.restore_damaged, trained, scratch, piece),
            names=["checkpoints"],
            expected=checkpoint_cases.all_good,
            limit_s=300,
            limit_bytes=8 << 30,
        )


def test_damaged_files_are_never_taken_for_whole_ones(trained, tmp_path):
    for outcome in fuzz(trained, tmp_path, range(20)):
        assert outcome.kind == "right", outcome


@pytest.mark.slow
def test_a_thousand_damaged_files(trained, tmp_path):
    outcomes = list(fuzz(trained, tmp_path, range(1000, 2000)))
    restored = (tmp_path / "restored").read_text().split()
    print("1000 damaged checkpoints in pieces of 50:", runner.count(outcomes))
    print("what was restored:", dict(collections.Counter(restored)))
    assert not runner.bad(enumerate(outcomes))
    assert len(restored) == 1000


def state(step, value=1.0):
    weights = {"layers": {"kernel": jnp.full((4, 8), value) + step}}
    return TrainState(jnp.int32(step), weights, {}, {"moments": jnp.ones(8) * step})


def values(state):
    return jax.tree.map(np.asarray, (state.trainable, state.opt_state))


def test_a_damaged_checkpoint_takes_no_place_of_those_that_are_kept(tmp_path, caplog):
    two = Checkpoints(str(tmp_path), CheckpointConfig(keep_last=2))
    for step in (2, 4, 6):
        two.save(state(step), data={"next_step": step})
    two.close()
    assert saved(tmp_path) == [4, 6]
    (data,) = (tmp_path / "checkpoints" / "6" / "state" / "d").iterdir()
    data.write_bytes(bytes(data.stat().st_size))
    one = Checkpoints(str(tmp_path), CheckpointConfig(keep_last=1))
    found, position = one.restore(state(0))
    assert position == {"next_step": 4}
    jax.tree.map(np.testing.assert_array_equal, values(found), values(state(4)))
    folder = tmp_path / "checkpoints"
    assert f"{folder / '6'} is not readable" in caplog.text
    assert f"going back to {folder / '4'}" in caplog.text
    one.save(state(5), data={"next_step": 5})  # 6 is no newer one to be kept instead
    one.wait()
    assert saved(tmp_path) == [5, 6]
    one.save(state(6), data={"next_step": 6})
    one.close()
    assert saved(tmp_path) == [6]
    again = Checkpoints(str(tmp_path), CheckpointConfig(), writes=False)
    jax.tree.map(
        np.testing.assert_array_equal, values(again.restore(state(0))[0]), values(state(6))
    )
    (data,) = (folder / "6" / "state" / "d").iterdir()
    data.unlink()
    with pytest.raises(CheckpointError, match=r"none of the checkpoints \[6\]"):
        again.restore(state(0))
    again.close()


# ------------------------------------------------------------------------------- not finite


def with_gradients_of(monkeypatch, config, step, value):
    """In one step the gradients are `value`; the loss is as it was."""
    original = update.traits_of

    def traits_of(objective):
        traits = original(objective)

        def make_gradient(*arguments):
            gradient = traits.make_gradient(*arguments)
            wanted = jax.random.fold_in(jax.random.key(config.seed), step - 1)

            def spoiled(trainable, frozen, key, batch, preamble):
                result, gradients = gradient(trainable, frozen, key, batch, preamble)
                is_it = (jax.random.key_data(key) == jax.random.key_data(wanted)).all()
                return result, jax.tree.map(lambda x: jnp.where(is_it, value, x), gradients)

            return spoiled

        return dataclasses.replace(traits, make_gradient=make_gradient)

    monkeypatch.setattr(update, "traits_of", traits_of)


@pytest.mark.parametrize(("step", "last"), [pytest.param(2, None, marks=pytest.mark.slow), (4, 2)])
def test_a_nan_gradient_at_a_save_is_not_saved(config, trained, step, last, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        with_gradients_of(patch, config, step, jnp.nan)
        with pytest.raises(DivergedError) as caught:
            train(config, str(tmp_path))
    said = str(caught.value)
    assert f"the gradient norm of step {step} is nan (learning rate 0.0" in said
    assert "weights that are not finite: decoder" in said
    assert saved(tmp_path) == ([] if last is None else [last])
    assert said.endswith("another --workdir")
    if last is None:
        assert "there is no checkpoint before it" in said
        return
    assert f"the checkpoint of step {last} is intact" in said
    # What the message advises first: the same command.
    assert train(config, str(tmp_path)).step == 4
    expected, found = (open_run(str(x)).params for x in (trained, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, expected, found)


@pytest.mark.slow
def test_another_run_goes_on_from_the_weights_before_a_nan(config, trained, tmp_path):
    """What the message of a NaN advises where the same command ends there again."""
    lower = dataclasses.replace(config.optimizer, peak_lr=config.optimizer.peak_lr / 2)
    model = dataclasses.replace(config.model, path=str(trained))
    another = dataclasses.replace(config, optimizer=lower, model=model, num_steps=2)
    assert train(another, str(tmp_path / "another")).step == 2


def test_a_checkpoint_of_nan_is_not_gone_on_from(tmp_path, caplog):
    """Earlier revisions saved such weights, and every restart failed."""
    checkpoints = Checkpoints(str(tmp_path), CheckpointConfig())
    checkpoints.save(state(2), data={"next_step": 2})
    checkpoints.save(state(4, np.nan), data={"next_step": 4})
    checkpoints.wait()
    found, _ = checkpoints.restore(state(0))
    checkpoints.close()
    assert int(found.step) == 2
    assert "weights that are not finite (decoder)" in caplog.text


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"loss": np.inf}, "the loss of step 7 is inf (learning rate 0.1, gradient norm 2)"),
        ({"learning_rate": np.nan}, "the learning rate of step 7 is nan (loss 1, gradient norm 2)"),
        ({"finite_weights/vision": 0.0}, "step 7 made weights that are not finite (vision)"),
    ],
)
def test_what_was_not_finite_is_named(metrics, said):
    good = {"loss": 1.0, "gradient_norm": 2.0, "learning_rate": 0.1}
    flags = {"finite_weights/decoder": 1.0}
    assert check_finite(7, good | flags) == good
    with pytest.raises(DivergedError) as caught:
        check_finite(7, good | flags | metrics)
    assert str(caught.value).startswith(said)


# ------------------------------------------------------------------------ errors during a save


def test_a_data_error_lets_a_save_end(config, tmp_path, monkeypatch):
    """Writing takes a second here, and the data of the next step cannot be read."""
    from orbax.checkpoint._src.path import atomicity

    rename, iterate = atomicity.async_path.rename, ContrastiveLoader.__iter__

    async def slowly(source, target):
        if Path(target).name == "2":
            time.sleep(1)
        await rename(source, target)

    def fail(self):
        for index, *rest in iterate(self):
            if index == 2:
                raise ValueError("triplets.jsonl:7 is damaged")
            yield index, *rest

    with monkeypatch.context() as patch:
        patch.setattr(atomicity.async_path, "rename", slowly)
        patch.setattr(ContrastiveLoader, "__iter__", fail)
        with pytest.raises(ValueError, match="7 is damaged"):
            train(config, str(tmp_path))
    assert saved(tmp_path) == [2]
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))


def test_what_a_data_error_advises_can_be_done(config, tmp_path, monkeypatch):
    """A medium of the third batch is damaged; the same run goes on without its example."""
    workdir, size = str(tmp_path / "run"), config.data.batch_size
    lines = runs.write_triplets(tmp_path / "triplets.jsonl", count=4 * size)
    data = dataclasses.replace(config.data, sources=(JsonlSource(str(lines)),))
    config = dataclasses.replace(config, data=data)
    stream = ExampleStream(data, config.seed)
    anchors = [stream[number].anchor.text for number in range(3 * size)]
    damaged = max({*anchors[2 * size :]} - {*anchors[: 2 * size]}, key=len)
    original, error = Processor.try_encode, MediaError("photo.png is no image; remove it")

    def try_encode(self, items):
        pairs = zip(items, original(self, items), strict=True)
        return [error if item.text == damaged else encoded for item, encoded in pairs]

    monkeypatch.setattr(Processor, "try_encode", try_encode)
    with pytest.raises(MediaError, match=r"photo\.png .*; or set data\.media\.on_error to skip"):
        train(config, workdir)
    assert saved(tmp_path / "run") == [2]
    media = dataclasses.replace(config.data.media, on_error="skip")
    skipping = dataclasses.replace(config, data=dataclasses.replace(config.data, media=media))
    result = train(skipping, workdir)
    assert (result.step, result.metrics["unreadable"] > 0) == (4, True)
    manifest = read_manifest(workdir)
    assert manifest.config.data.media.on_error == "skip"
    assert manifest.earlier_on_error == ((2, "raise"),)
