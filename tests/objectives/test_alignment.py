"""The alignment loss against a plain reading of its definition in torch, on one shard and more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lco_jax.config import Alignment
from lco_jax.data.pack.batch import Batch
from lco_jax.data.pack.media_batch import MediaBatch
from lco_jax.objectives.alignment import alignment_loss
from lco_jax.objectives.loaders import spell
from lco_jax.runtime.axes import act_spec
from tests import meshes

NEVER = -1e30
WIDTH, LENGTH, UNITS, AUDIO = 6, 24, 8, 12
VOCABULARY = np.array([3, 5, 7, 8, 11, 20, 21], np.int32)
ITEMS = (  # kind, number of features, tokens; two shards of two rows each
    ("audio", 7, (5, 7, 5)),
    ("image", 4, (3, 20)),
    ("audio", 2, (8, 11, 20)),  # more tokens than features: left out
    ("image", 3, (21,)),
    ("audio", 5, (21, 3, 8, 5, 7)),
    ("audio", 6, (11,)),
)


def make_batch(num_shards):
    """The items in rows, two on each; each shard has its own features."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, UNITS + AUDIO, WIDTH)).astype(np.float32)
    shape = (4, LENGTH)
    tokens, segments, slots = np.ones(shape, np.int32), np.zeros(shape, np.int32), None
    slots, targets = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    pool, valid = np.zeros((1, 8), np.int32), np.zeros((1, 8), bool)
    taken = {(shard, kind): 0 for shard in (0, 1) for kind in ("audio", "image")}
    found = []
    for number, (kind, count, labels) in enumerate(ITEMS):
        shard, place = divmod(number, 3)
        row, start = shard * 2 + place // 2, 12 * (place % 2)
        first = taken[shard, kind] + (UNITS if kind == "audio" else 0)
        taken[shard, kind] += count
        own = np.arange(first, first + count)
        slots[row, start : start + count] = own
        end = start + count + len(labels)
        targets[row, start + count : end] = labels
        segments[row, start:end] = number + 1
        pool[0, shard * 4 + place] = (row % 2) * LENGTH + end - 1
        valid[0, shard * 4 + place] = True
        found.append((kind, features[shard, own], labels))
    if num_shards == 1:  # the second shard's features and rows lie behind those of the first
        features = np.concatenate(
            [features[:, :UNITS].reshape(-1, WIDTH), features[:, UNITS:].reshape(-1, WIDTH)]
        )[None]
        moved = slots[2:]
        slots[2:] = np.where(moved >= UNITS, moved + UNITS + AUDIO, moved + UNITS * (moved >= 0))
        slots[:2] = np.where(slots[:2] >= UNITS, slots[:2] + UNITS, slots[:2])
        pool[0, 4:] += 2 * LENGTH
    return features, found, (tokens, targets, segments, slots, pool, valid)


def expected(found, table, pull):
    """The loss by its definition, on a torch tensor of the features of every item."""
    lengths = (table**2).sum(1)
    audio = audio_features = image = images = distance = count = 0
    for kind, features, labels in found:
        chances = torch.log_softmax(-(torch.cdist(features, table) ** 2), 1)
        own = chances[:, np.searchsorted(VOCABULARY, labels).tolist()]
        said = chances.exp().detach() @ table
        distance = distance + ((features - said) ** 2).sum() / lengths.mean()
        count += len(features)
        if kind == "image":
            image = image - torch.logsumexp(own - np.log(len(own)), 0).mean()
            images += 1
        elif len(own) >= len(labels):
            # The sum over all ways to give every token one feature or several on end.
            middles = (torch.arange(len(own)) + 0.5) * len(labels) / len(own)
            half = 0.5 + max(0.25, len(labels) / len(own))
            far = (middles[:, None] - torch.arange(len(labels)) - 0.5).abs() > half
            own = own + NEVER * far
            ways = [own[0, 0]] + [torch.tensor(NEVER)] * (len(labels) - 1)
            for step in own[1:]:
                before = [torch.tensor(NEVER), *ways[:-1]]
                ways = [
                    torch.logaddexp(stay, come) + chance
                    for stay, come, chance in zip(ways, before, step, strict=True)
                ]
            audio, audio_features = audio - ways[-1], audio_features + len(features)
    return audio / audio_features + image / images + pull * distance / count


@pytest.mark.parametrize("num_shards", [1, 2])
def test_loss_and_gradient(num_shards):
    features, found, arrays = make_batch(num_shards)
    table = np.random.default_rng(1).normal(size=(len(VOCABULARY), WIDTH)).astype(np.float32)
    objective = Alignment(pull=0.7, max_response_tokens=6)
    with jax.set_mesh(meshes.make((num_shards, 1, 1))):
        letters = ("B S", "B S", "B S", "B S", "J I", "J I")
        tokens, targets, segments, slots, pool, valid = (
            jax.device_put(array, jax.NamedSharding(jax.sharding.get_mesh(), act_spec(spec)))
            for array, spec in zip(arrays, letters, strict=True)
        )
        chunk = Batch(
            tokens=tokens,
            segments=segments,
            positions=None,
            pool=pool,
            valid=valid,
            content=None,
            media=MediaBatch(None, None, slots),
            targets=targets,
            vocabulary=jnp.asarray(VOCABULARY),
        )
        placed = jax.device_put(
            features, jax.NamedSharding(jax.sharding.get_mesh(), act_spec("G X D"))
        )
        units = UNITS * (3 - num_shards)

        def loss_fn(features):
            return alignment_loss(features, chunk, jnp.asarray(table), units, objective)

        (loss, metrics), gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(placed)
    leaves = [torch.tensor(own, requires_grad=True) for _, own, _ in found]
    given = [(kind, leaf, labels) for (kind, _, labels), leaf in zip(found, leaves, strict=True)]
    wanted = expected(given, torch.tensor(table), objective.pull)
    wanted.backward()
    assert float(loss) == pytest.approx(wanted.item(), rel=1e-5)
    assert 0 <= float(metrics["read"]) <= 1
    gradient = np.asarray(gradient)
    order = slots_of(arrays, num_shards)
    for (shard, own), leaf in zip(order, leaves, strict=True):
        np.testing.assert_allclose(gradient[shard, own], leaf.grad.numpy(), atol=1e-5)


def slots_of(arrays, num_shards):
    """Shard and features of every item."""
    _, _, segments, slots, _, _ = arrays
    for number in range(len(ITEMS)):
        rows, columns = np.nonzero((segments == number + 1) & (slots >= 0))
        yield (rows[0] // 2 if num_shards == 2 else 0), slots[rows, columns]


def test_words_are_spelled_as_within_a_sentence():
    assert spell("Please wait: it's 5 o'clock!") == " please wait it's 5 o'clock"
    assert spell("...") == ""
