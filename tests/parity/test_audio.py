"""The audio tower against transformers: clips of uneven length, budgets, meshes, Whisper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from lco_jax.models.audio import AudioTower
from lco_jax.models.build import on_mesh
from lco_jax.models.config import read_config
from lco_jax.runtime.axes import act_spec
from lco_jax.weights.hub import load_params
from tests import meshes, tiny

FRAMES = [5, 1200, 3, 200, 201, 399, 403, 51, 4, 997]
"""Clips of 0.03 to 12 s, most of them no multiple of anything."""
NUM_MELS, CHUNK = 128, 200


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return tiny.write(folder, "qwen2_5_omni_thinker", audio=tiny.DEEP_EAR)


def load(folder, dtype="float32"):
    """The compiled tower, on the mesh that is set."""
    config = read_config(folder)
    tower = jax.eval_shape(lambda: AudioTower(config.audio, dtype=dtype, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(tower)
    abstract = on_mesh(nnx.to_pure_dict(state))
    params = load_params(folder, config, {"audio": abstract})["audio"]
    return jax.jit(lambda *arrays: nnx.merge(graph, params)(*arrays))


@pytest.fixture(scope="module")
def tower(checkpoint):
    with jax.set_mesh(meshes.make((1, 1, 1))):
        return load(checkpoint.folder)


def random_mels(frames, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(NUM_MELS, length)).astype(np.float32) for length in frames]


def torch_features(checkpoint, mels):
    """The features of each clip, all clips given in one call."""
    lengths = torch.tensor([mel.shape[1] for mel in mels])
    with torch.no_grad():
        out = checkpoint.model.model.audio_tower(
            torch.tensor(np.concatenate(mels, axis=1)), feature_lens=lengths
        )
    ends = np.cumsum([(length + 1) // 4 for length in lengths.tolist()])
    return np.split(out.last_hidden_state.numpy(), ends[:-1])


def features(tower, groups, num_chunks, rubbish=0.0):
    """The features of each clip of each group; padding is filled with `rubbish`."""
    mel = np.full((len(groups), num_chunks, NUM_MELS, CHUNK), rubbish, np.float32)
    num_frames = np.zeros((len(groups), num_chunks), np.int32)
    for group, clips in enumerate(groups):
        chunks = [
            clip[:, at : at + CHUNK] for clip in clips for at in range(0, clip.shape[1], CHUNK)
        ]
        for index, chunk in enumerate(chunks):
            mel[group, index, :, : chunk.shape[1]] = chunk
            num_frames[group, index] = chunk.shape[1]
    arrays = (jax.device_put(array, act_spec("G")) for array in (mel, num_frames))
    found = np.asarray(tower(*arrays))
    assert np.isfinite(found).all()
    real = np.arange(found.shape[2]) < ((num_frames + 1) // 4)[..., None]
    features = []
    for group, clips in enumerate(groups):
        ends = np.cumsum([(clip.shape[1] + 1) // 4 for clip in clips])
        features.append(np.split(found[group][real[group]], ends[:-1]) if clips else [])
    return features


def test_features(checkpoint, tower):
    mels = random_mels(FRAMES)
    (found,) = features(tower, [mels], 23)
    expected = torch_features(checkpoint, mels)
    assert [len(clip) for clip in found] == [(length + 1) // 4 for length in FRAMES]
    assert np.concatenate(expected).std() > 0.1
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_neighbours_budget_and_padding_do_not_matter(tower):
    short, long = random_mels([77, 430], seed=1)
    (alone,) = features(tower, [[long]], 3)
    for clips, num_chunks, rubbish in (([short, long], 4, 0), ([long], 5, 9.0)):
        (found,) = features(tower, [clips], num_chunks, rubbish)
        np.testing.assert_allclose(found[-1], alone[0], atol=1e-6)


@pytest.mark.parametrize("sizes", meshes.SIZES[1:], ids=str)
def test_groups_on_a_mesh(checkpoint, sizes):
    groups = [[], random_mels([250, 31]), random_mels([600], seed=1), random_mels([4, 8], seed=2)]
    with jax.set_mesh(meshes.make(sizes)):
        found = features(load(checkpoint.folder), groups, 3)
    assert found[0] == []
    for ours, clips in zip(found[1:], groups[1:], strict=True):
        for one, other in zip(ours, torch_features(checkpoint, clips), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_gradients(checkpoint, tower):
    """Of the features' squares, with respect to the mel frames."""
    (mel,) = random_mels([130])

    def loss(padded):
        rows = tower(padded, jnp.array([[130]], jnp.int32))[0, 0, : 131 // 4]
        return jnp.sum(jnp.square(rows))

    padded = np.zeros((1, 1, NUM_MELS, CHUNK), np.float32)
    padded[0, 0, :, :130] = mel
    found = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(padded)))[0, 0]
    frames = torch.tensor(mel, requires_grad=True)
    audio = checkpoint.model.model.audio_tower
    audio(frames, feature_lens=torch.tensor([130])).last_hidden_state.square().sum().backward()
    expected = frames.grad.numpy()
    error = np.linalg.norm(found[:, :130] - expected) / np.linalg.norm(expected)
    assert error < 1e-5
    assert not found[:, 130:].any()


def test_bfloat16_stays_close(checkpoint, tower):
    mels = random_mels(FRAMES[:5])
    (exact,) = features(tower, [mels], 12)
    (rounded,) = features(load(checkpoint.folder, "bfloat16"), [mels], 12)
    exact, rounded = np.concatenate(exact), np.concatenate(rounded)
    assert rounded.dtype == jnp.bfloat16
    rounded = rounded.astype(np.float32)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    assert ((exact * rounded).sum(1) / norms).min() > 0.999


def test_other_mels_are_refused(tower):
    with pytest.raises(ValueError, match="80 mels and 200 frames; this tower reads 128 mels"):
        tower(jnp.zeros((1, 1, 80, 200)), jnp.ones((1, 1), jnp.int32))
