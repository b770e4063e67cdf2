"""Kernel alignment against plain oracles, and on spaces whose alignment is known."""

import inspect

import numpy as np
import pytest

from lco_jax.metrics import kernel_alignment as alignment
from lco_jax.metrics import neighbour_metrics, neighbours
from lco_jax.metrics.kernel_alignment import align, align_layers
from lco_jax.metrics.kernel_metrics import principal_directions, svcca
from lco_jax.metrics.modality_gap import modality_gap
from lco_jax.metrics.names import METRICS
from lco_jax.metrics.neighbours import nearest_neighbours
from tests.metrics import kernel_oracles as oracles

CCA_DIM = 6


def _gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _case(seed):
    """Two noisy views of the same items, at times collapsed, with few items or few dimensions."""
    rng = np.random.default_rng(seed)
    # Few shapes, so that little is compiled.
    count, x_width, y_width = [(40, 24, 24), (40, 60, 24), (25, 60, 60), (70, 8, 60)][seed % 4]
    topics = rng.normal(size=(count, 5))
    x, y = (topics @ rng.normal(size=(5, width)) for width in (x_width, y_width))
    noise, cone = rng.uniform(0.2, 3), rng.choice([0, 4])
    x = x + noise * rng.normal(size=x.shape) + cone
    y = y + noise * rng.normal(size=y.shape) + cone / 2
    return x.astype(np.float32), y.astype(np.float32)


@pytest.mark.parametrize("seed", range(20))
def test_every_metric_equals_its_oracle(seed):
    x, y = _case(seed)
    k = 4 + 3 * (seed % 2)
    found = align(x, y, k=k, cca_dim=CCA_DIM)
    assert set(found) == set(METRICS)
    for name, value in found.items():
        oracle = getattr(oracles, name)
        options = {"k": k, "dim": CCA_DIM}
        wanted = {
            key: options[key] for key in inspect.signature(oracle).parameters.keys() & options
        }
        assert value == pytest.approx(oracle(x, y, **wanted), abs=1e-6), name


def test_svcca_equals_scikit_learn():
    from sklearn.cross_decomposition import CCA

    x, y = (principal_directions(v, CCA_DIM) for v in _case(1))
    cca = CCA(CCA_DIM, scale=False, tol=1e-14, max_iter=100_000).fit(x, y)
    a, b = cca.transform(x, y)
    expected = np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(CCA_DIM)])
    assert svcca(x, y) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_a_rotation_is_aligned(name):
    x = _gaussian(0, 60, 16)
    rotation, _ = np.linalg.qr(_gaussian(1, 16, 16))
    rotated = 3 * x @ rotation
    (value,) = align(x, rotated, [name], k=3).values()
    if name == "cycle_knn":  # an outlier is nobody's neighbour, in its own space as in another
        assert value == align(x, x, [name], k=3)[name]
        assert 0.7 < value < 1
    elif name == "svcca":  # scaling every dimension depends on the axes
        assert align(x, 3 * x, [name])[name] == pytest.approx(1, abs=1e-6)
        assert value > 0.6
    else:
        assert value == pytest.approx(1, abs=1e-6)


def test_a_cycle_closes_in_spaces_of_twins():
    x = np.repeat(_gaussian(2, 20, 16), 2, axis=0) + 0.01 * _gaussian(3, 40, 16)
    assert align(x, -x, ["cycle_knn"], k=1) == {"cycle_knn": 1}


def test_the_margin_of_mutual_knn_is_that_of_its_items():
    x, y = _case(0)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y)]
    near = [np.asarray(nearest_neighbours(side, 5).ids).tolist() for side in unit]
    shares = [len(set(own) & set(other)) / 5 for own, other in zip(*near, strict=True)]
    found = align_layers([x], [y], ["mutual_knn"], k=5)
    assert found.values["mutual_knn"][0] == pytest.approx(np.mean(shares))
    assert found.margin[0] == pytest.approx(1.96 * np.std(shares, ddof=1) / np.sqrt(len(shares)))
    assert align_layers([x], [y], ["svcca"], k=5, cca_dim=CCA_DIM).margin is None


def test_independent_spaces_are_at_chance():
    count, k = 800, 10
    found = align(_gaussian(4, count, 20), _gaussian(5, count, 20), k=k)
    chance = k / (count - 1)
    # Hypergeometric: the mean of 800 counts of 10 draws, 4 standard errors.
    assert found["mutual_knn"] == pytest.approx(chance, abs=4 * np.sqrt(chance / (k * count)))
    assert abs(found["unbiased_cka"]) < 0.01
    assert abs(found["cknna"]) < 0.02
    assert found["lcs_knn"] <= found["mutual_knn"]
    assert found["edit_distance_knn"] < 0.03
    assert found["cycle_knn"] < 2 * k * chance
    assert found["svcca"] < 0.25
    # The biased one is not: 20 dimensions among 800 items.
    assert found["cka"] == pytest.approx(20 / count, rel=0.3)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_blocks_change_nothing(monkeypatch, rows):
    x, y = _case(2)
    whole = align(x, y, k=4, cca_dim=CCA_DIM)
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", rows * 4 * len(x))
    monkeypatch.setattr(neighbour_metrics, "_BLOCK_ENTRIES", rows * 16)
    for function in (neighbour_metrics._over_rows, neighbour_metrics._masked_parts):
        function.clear_cache()
    assert align(x, y, k=4, cca_dim=CCA_DIM) == pytest.approx(whole, abs=1e-6)


def test_layers_one_by_one_and_each_with_each():
    x = [_gaussian(seed, 30, 12) for seed in range(3)]
    y = [x[2], x[1] + 0.3 * _gaussian(9, 30, 12)]
    table = align_layers(x, y, k=4, cca_dim=5, each_with_each=True)
    assert (table.k, table.num_items) == (4, 30)
    for name in METRICS:
        assert table.values[name].shape == (3, 2)
        for i, j in np.ndindex(3, 2):
            single = align(x[i], y[j], [name], k=4, cca_dim=5)[name]
            assert table.values[name][i, j] == pytest.approx(single, abs=1e-6)
    line = align_layers(x[:2], y, k=4, cca_dim=5)
    for name in METRICS:
        np.testing.assert_allclose(line.values[name], np.diag(table.values[name]), atol=1e-6)
    with pytest.raises(ValueError, match="3 and 2 layers"):
        align_layers(x, y, k=4)


def test_a_layer_of_one_point_has_no_alignment():
    point = np.tile(_gaussian(6, 1, 12), (30, 1))
    space = _gaussian(7, 30, 12)
    found = align_layers([point, space], [point, space], ["mutual_knn", "cka", "svcca"], k=3)
    for values in found.values.values():
        assert np.isnan(values[0])
        assert values[1] == pytest.approx(1, abs=1e-6)


def test_layers_are_read_when_needed_and_two_at_a_time(monkeypatch):
    class Lazy:
        def __init__(self, layers):
            self.layers, self.reads = layers, []

        def __len__(self):
            return len(self.layers)

        def __getitem__(self, index):
            self.reads.append(index)
            return self.layers[index]

    x, y = (Lazy([_gaussian(10 * side + i, 20, 6) for i in range(3)]) for side in range(2))
    align_layers(x, y, ["mutual_knn"], k=3)
    assert x.reads == [0, 1, 2, 0]  # the last one for the number of items
    x.reads.clear(), y.reads.clear()
    table = align_layers(x, y, ["cka"], each_with_each=True)
    assert (len(x.reads), len(y.reads)) == (3 + 3 + 1, 3 + 3)
    monkeypatch.setattr(alignment, "_KEEP_BYTES", 0)  # too large to keep
    x.reads.clear(), y.reads.clear()
    again = align_layers(x, y, ["cka"], each_with_each=True)
    assert (len(x.reads), len(y.reads)) == (3 + 3 + 1, 3 + 9)
    np.testing.assert_array_equal(again.values["cka"], table.values["cka"])


def test_bad_input_is_named():
    x = _gaussian(8, 10, 4)
    with pytest.raises(ValueError, match=r"unknown metrics \['cca'\]"):
        align(x, x, ["cca"])
    with pytest.raises(ValueError, match=r"k=10 must be in 1\.\.9"):
        align(x, x, ["mutual_knn"])
    with pytest.raises(ValueError, match="the same items"):
        align(x, x[:8], ["mutual_knn"], k=3)
    with pytest.raises(ValueError, match="10 and 8 items"):
        align(x, x[:8], ["cka"])
    with pytest.raises(ValueError, match="k=1"):
        align(x, x, ["cknna"], k=1)
    with pytest.raises(ValueError, match="over 10 directions"):
        align(x, x, ["svcca"])


def test_neighbours_come_nearest_first_without_the_item_itself():
    angles = np.array([0.0, 0.1, 0.3, 0.7, 1.5])
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    near = nearest_neighbours(unit, 2)
    np.testing.assert_array_equal(near.ids, [[1, 2], [0, 2], [1, 0], [2, 1], [3, 2]])
    np.testing.assert_allclose(near.cosines[0], np.cos([0.1, 0.3]), atol=1e-6)


def test_modality_gap_of_two_planted_cones():
    x = _gaussian(11, 200, 64)
    y = x + 0.1 * _gaussian(12, 200, 64)
    gap = modality_gap(x, y)
    assert gap.distance < 0.2 and gap.paired_cosine > 0.9 and abs(gap.unpaired_cosine) < 0.05
    shift = np.zeros(64, np.float32)
    shift[0] = 100
    apart = modality_gap(x + shift, y - shift)
    assert apart.distance == pytest.approx(2, abs=0.05)
    assert apart.centroid_cosine == pytest.approx(-1, abs=1e-3)
    with pytest.raises(ValueError, match="shapes"):
        modality_gap(x, y[:5])


def test_modality_gap_equals_the_cosine_matrix():
    x, y = _case(0)
    cosines = oracles.unit(x) @ oracles.unit(y).T
    gap = modality_gap(x, y)
    assert gap.paired_cosine == pytest.approx(np.diag(cosines).mean(), abs=1e-9)
    others = cosines[~np.eye(len(x), dtype=bool)]
    assert gap.unpaired_cosine == pytest.approx(others.mean(), abs=1e-9)
