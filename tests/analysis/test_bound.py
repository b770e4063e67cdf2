"""Theorem 1 against hand-computed values, and as a function of its terms."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lco_jax.analysis import bound
from lco_jax.analysis.bound import Terms, paper_bound, valid_bound
from lco_jax.report import bound_figure

TERMS = Terms(num_candidates=2112, information=2.0, slack=0.5, kl=1000.0, num_samples=371_000)


def test_printed_bound_by_hand():
    # log 2112 = 7.65539; root of (1000 + log 20) / 742000 = 1002.99573 / 742000.
    found = paper_bound(TERMS)
    assert found.warm_start == pytest.approx(7.65539 - 2 + 0.5, abs=1e-5)
    assert found.complexity == pytest.approx(0.0367661, abs=1e-6)
    assert found.total == pytest.approx(6.192156, abs=1e-5)


def test_valid_bound_by_hand():
    # B = log 2111 + 2 / 0.03 = 7.65492 + 66.66667 up to e^-74; constant log(2 · 609.098 / 0.05).
    found = valid_bound(TERMS)
    assert bound.loss_range(2112, 0.03) == pytest.approx(74.321588, abs=1e-5)
    assert found.complexity == pytest.approx(
        74.321588 * math.sqrt((1000 + 10.100823) / 742_000), abs=1e-5
    )
    assert not found.clipped


def test_loss_range_is_reached_by_the_worst_vectors():
    for count, temperature in ((2, 0.5), (10, 1.0), (2112, 0.03)):
        logits = np.full(count, 1 / temperature)
        logits[0] = -1 / temperature
        worst = np.logaddexp.reduce(logits) - logits[0]
        assert bound.loss_range(count, temperature) == pytest.approx(worst, rel=1e-12)


def test_an_uninformed_encoder_is_promised_log_n():
    terms = Terms(num_candidates=2112, information=0, slack=0, kl=0, num_samples=10**12)
    assert paper_bound(terms).total == pytest.approx(math.log(2112), abs=1e-4)
    assert valid_bound(terms).total == pytest.approx(math.log(2112), abs=1e-3)


def test_information_is_clipped_to_what_infonce_can_express():
    rich = dataclasses.replace(TERMS, information=50.0, slack=0.0)
    assert paper_bound(rich).total < 0  # as printed it promises a negative loss
    assert valid_bound(rich).warm_start == 0 and valid_bound(rich).clipped
    poor = dataclasses.replace(TERMS, information=-3.0, slack=0.0)
    assert (
        valid_bound(poor).warm_start == pytest.approx(math.log(2112)) and valid_bound(poor).clipped
    )


def test_corollary_the_bound_rises_one_for_one_with_the_generative_loss():
    def at(generative_loss):
        information = bound.captured_information(9.0, generative_loss)
        return paper_bound(dataclasses.replace(TERMS, information=information)).total

    assert at(6.5) - at(6.0) == pytest.approx(0.5, abs=1e-12)
    assert at(7.0) - at(6.0) == pytest.approx(1.0, abs=1e-12)


def test_slack_is_the_least_that_satisfies_the_hypothesis():
    slack = bound.warm_start_slack(3.0, 5.0, 2112)
    assert math.log(2112) - 5.0 + slack == pytest.approx(3.0)
    assert bound.warm_start_slack(1.0, 5.0, 2112) == 0


_terms = st.builds(
    Terms,
    num_candidates=st.integers(2, 10**5),
    information=st.floats(-5, 20),
    slack=st.floats(0, 10),
    kl=st.floats(0, 1e6),
    num_samples=st.integers(1, 10**7),
    temperature=st.floats(0.01, 2),
    delta=st.floats(1e-6, 0.5),
)


@settings(max_examples=200, deadline=None)
@given(_terms, st.floats(0.01, 10))
def test_more_of_a_good_thing_lowers_the_bound_and_of_a_bad_one_raises_it(terms, more):
    for rule in (paper_bound, valid_bound):
        here = rule(terms).total

        def with_(rule=rule, **changes):
            return rule(dataclasses.replace(terms, **changes)).total

        assert with_(information=terms.information + more) <= here
        assert with_(delta=min(0.9, terms.delta * (1 + more))) <= here
        assert with_(slack=terms.slack + more) > here
        assert with_(kl=terms.kl + more * 100) > here
        assert with_(num_candidates=terms.num_candidates * 2) > here
        larger = with_(num_samples=terms.num_samples * 16)
        assert larger <= here
    assert valid_bound(terms).complexity >= paper_bound(terms).complexity * min(
        1, bound.loss_range(terms.num_candidates, terms.temperature)
    )
    assert valid_bound(terms).warm_start >= terms.slack


def test_kl_of_factors_is_that_of_the_merged_update():
    rng = np.random.default_rng(0)
    pairs = [
        (rng.normal(size=(3, 4, 10)).astype(np.float32), rng.normal(size=(3, 4, 2, 6))),
        (rng.normal(size=(2, 4, 7)), rng.normal(size=(2, 4, 5))),
    ]
    expected = 0.0
    for a, b in pairs:
        for layer in range(len(a)):
            update = 2.0 * a[layer].T.astype(np.float64) @ b[layer].reshape(4, -1)
            expected += np.sum(update**2) / (2 * 0.1**2)
    assert bound.lora_kl(pairs, scale=2.0, prior_std=0.1) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="L R must be equal"):
        bound.lora_kl([(np.ones((2, 4, 3)), np.ones((2, 5, 3)))], 1.0, 1.0)
    with pytest.raises(ValueError, match="prior_std=0"):
        bound.lora_kl(pairs, 1.0, 0)


def test_factors_are_found_in_a_tree():
    a, b = np.ones((2, 4, 3)), np.zeros((2, 4, 5))
    tree = {"layers": {"mlp": {"up": {"lora_a": a, "lora_b": b}, "norm": {"scale": a}}}}
    ((found_a, found_b),) = bound.lora_factors(tree)
    assert found_a is a and found_b is b


def _line(**changes):
    record = {
        "name": "a",
        "num_candidates": 64,
        "kl": 3.0,
        "num_samples": 1000,
        "measured_loss": 1.2,
    }
    return {**record, **changes}


def test_runs_are_read_with_measured_terms_and_drawn(tmp_path):
    file = tmp_path / "runs.jsonl"
    lines = [
        _line(unconditional_loss=9.0, generative_loss=7.0, empirical_loss=3.0),
        _line(name="b", information=1.5, slack=0.2, temperature=0.1),
        _line(name="c", information=99.0, empirical_loss=0.7),
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    runs = bound.read_runs(str(file))
    assert runs[0].terms.information == 2.0
    assert runs[0].terms.slack == pytest.approx(3 - math.log(64) + 2)
    assert runs[2].terms.slack == pytest.approx(0.7)  # of the clipped information
    rows = [bound.compare(run) for run in runs]
    assert rows[1]["valid"] == valid_bound(runs[1].terms).total
    assert [row["clipped"] for row in rows] == [False, False, True]
    assert rows[0]["warm_start"] == pytest.approx(3.0)
    bound_figure.draw(rows, tmp_path)
    assert (tmp_path / "bound.png").stat().st_size > 5000
    svg = (tmp_path / "bound.svg").read_text()
    assert "measured loss" in svg


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (_line(slack=0.0), "lacks 'unconditional_loss'"),
        (_line(information=1.0), "lacks 'empirical_loss'"),
        (_line(information=1.0, slack=0.0, lr=3), r"\['lr'\]"),
        (_line(information=1.0, slack=0.0, delta=1.5), "delta=1.5 is impossible"),
        (_line(information=1.0, slack=-1.0), "slack=-1.0 is impossible"),
    ],
)
def test_bad_runs_are_named(tmp_path, line, message):
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps(_line(information=1.0, slack=0.0)) + "\n" + json.dumps(line))
    with pytest.raises(ValueError, match=r"runs.jsonl:2: .*" + message):
        bound.read_runs(str(file))
