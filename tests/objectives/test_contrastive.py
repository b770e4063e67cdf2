"""The contrastive loss against a numpy oracle, and its fast paths against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lco_jax.config import Contrastive, Memory
from lco_jax.objectives.contrastive import contrastive_loss
from lco_jax.runtime.axes import act_spec
from tests import meshes


def make_batch(chunks=2, roles=3, examples=8, width=16, seed=0, duplicates=False):
    rng = np.random.default_rng(seed)
    pooled = rng.normal(size=(chunks, roles, examples, width)).astype(np.float32)
    pooled[:, 1] += 0.3 * pooled[:, 0]
    valid = np.ones((chunks, roles, examples), bool)
    valid[:, 2:] = rng.random(valid[:, 2:].shape) < 0.7
    high = 6 if duplicates else 2**31
    content = rng.integers(0, high, (chunks, roles, examples, 1)).astype(np.uint32)
    return pooled, valid, np.concatenate([content, content + 1], -1)


def oracle(pooled, valid, content, config: Contrastive):
    """Ten lines of numpy: mean cross-entropy over all positives, then all negatives."""
    flat = lambda x: np.moveaxis(x, 1, 0).reshape(x.shape[1], -1, *x.shape[3:])  # noqa: E731
    pooled, valid, content = flat(pooled.astype(np.float64)), flat(valid), flat(content)[..., 0]
    losses = []
    for dim in (*config.matryoshka_dims, pooled.shape[-1]):
        unit = pooled[..., :dim] / np.linalg.norm(pooled[..., :dim], axis=-1, keepdims=True)
        directions = [(unit[0], unit[1:], valid[1:], content[1:])]
        if config.symmetric:
            directions.append((unit[1], unit[:1], valid[:1], content[:1]))
        loss = 0.0
        for queries, candidates, usable, hashes in directions:
            candidates = candidates.reshape(-1, dim)
            usable, hashes = usable.reshape(-1), hashes.reshape(-1)
            for i, query in enumerate(queries):
                cosines = candidates @ query
                keep = usable.copy()
                if config.mask_duplicates:
                    keep &= (hashes != content[0, i]) & (hashes != content[1, i])
                if config.false_negative_margin is not None:
                    keep &= cosines <= cosines[i] + config.false_negative_margin
                keep[i] = True
                logits = cosines[keep] / config.temperature
                loss += np.log(np.exp(logits - logits.max()).sum()) + logits.max()
                loss -= cosines[i] / config.temperature
        losses.append(loss / len(unit[0]) / len(directions))
    return np.mean(losses)


CONFIGS = {
    "plain": Contrastive(),
    "warm": Contrastive(temperature=0.5),
    "symmetric": Contrastive(symmetric=True),
    "duplicates": Contrastive(mask_duplicates=True, symmetric=True),
    "margin": Contrastive(temperature=0.1, false_negative_margin=-0.2),
    "matryoshka": Contrastive(matryoshka_dims=(4, 8)),
}


@pytest.mark.parametrize("roles", [2, 3, 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_oracle(name, roles):
    batch = make_batch(roles=roles, duplicates=name == "duplicates")
    loss, _ = jax.jit(contrastive_loss, static_argnums=3)(*map(jnp.asarray, batch), CONFIGS[name])
    assert float(loss) == pytest.approx(oracle(*batch, CONFIGS[name]), rel=1e-6)


def test_uniform_vectors_give_the_logarithm_of_the_number_of_candidates():
    pooled, valid, content = make_batch()
    valid[:] = True
    loss, metrics = contrastive_loss(
        jnp.ones_like(pooled), jnp.asarray(valid), jnp.asarray(content), Contrastive()
    )
    assert float(loss) == pytest.approx(np.log(2 * 16), rel=1e-6)
    assert float(metrics["negatives_per_anchor"]) == 31
    assert float(metrics["accuracy@1"]) == 0


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "blocks", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(48, marks=pytest.mark.slow)]
)
def test_blocks_of_candidates_change_neither_value_nor_gradient(name, blocks):
    pooled, valid, content = map(jnp.asarray, make_batch(duplicates=name == "duplicates"))

    def run(logit_chunks):
        def loss(pooled):
            return contrastive_loss(
                pooled, valid, content, CONFIGS[name], Memory(logit_chunks=logit_chunks)
            )

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(pooled)

    (plain, plain_metrics), plain_gradient = run(1)
    (value, metrics), gradient = run(blocks)
    assert float(value) == pytest.approx(float(plain), rel=1e-6)
    np.testing.assert_allclose(gradient, plain_gradient, atol=2e-6)
    for key, expected in plain_metrics.items():
        assert float(metrics[key]) == pytest.approx(float(expected), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("sizes", meshes.ALL_AXES)
def test_devices_change_neither_value_nor_gradient(sizes):
    batch = make_batch()
    config = Contrastive(symmetric=True, mask_duplicates=True)

    def run(mesh_sizes):
        with jax.set_mesh(meshes.make(mesh_sizes)):
            specs = ("C J I D", "C J I", "C J I X")
            arrays = [
                jax.device_put(x, act_spec(spec)) for x, spec in zip(batch, specs, strict=True)
            ]
            fn = jax.value_and_grad(lambda x: contrastive_loss(x, *arrays[1:], config)[0])
            value, gradient = jax.jit(fn)(arrays[0])
            return float(value), np.asarray(gradient)

    value, gradient = run(sizes)
    plain, plain_gradient = run((1, 1, 1))
    assert value == pytest.approx(plain, rel=1e-6)
    np.testing.assert_allclose(gradient, plain_gradient, atol=1e-6)


def test_gradient_equals_that_of_torch():
    torch = pytest.importorskip("torch")
    pooled, valid, content = make_batch()
    valid[:] = True
    gradient = jax.grad(
        lambda x: contrastive_loss(x, jnp.asarray(valid), jnp.asarray(content), Contrastive())[0]
    )(jnp.asarray(pooled))

    leaf = torch.tensor(pooled, requires_grad=True)
    unit = torch.nn.functional.normalize(leaf.transpose(0, 1).flatten(1, 2), dim=-1)
    logits = unit[0] @ unit[1:].flatten(0, 1).T / 0.03
    torch.nn.functional.cross_entropy(logits, torch.arange(len(logits))).backward()
    expected = leaf.grad.numpy()
    assert np.linalg.norm(gradient - expected) < 1e-5 * np.linalg.norm(expected)
