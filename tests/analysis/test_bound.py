"""Theorem 1 against hand-computed values, and as a function of its terms."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lco_jax.analysis import bound, bound_runs
from lco_jax.analysis.bound import Terms, paper_bound, valid_bound
from lco_jax.analysis.bound_limits import limits, paper_sizes
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


def test_least_slack_makes_the_first_part_the_empirical_loss():
    """Each bound takes the slack of its own information; neither gets below the training loss."""
    poor = dataclasses.replace(TERMS, information=-3.0, slack=None, empirical_loss=9.0)
    assert paper_bound(poor).slack == 0  # log N + 3 is above 9 already
    assert paper_bound(poor).warm_start == pytest.approx(math.log(2112) + 3)
    assert valid_bound(poor).slack == pytest.approx(9 - math.log(2112))
    for information in (-3.0, 0.0, 2.0, 7.0, 50.0):
        for rule in (paper_bound, valid_bound):
            terms = dataclasses.replace(poor, information=information, empirical_loss=1.5)
            used = information
            if rule is valid_bound:
                used = bound.clip_information(information, 2112)
            expected = max(1.5, math.log(2112) - used)
            assert rule(terms).warm_start == pytest.approx(expected, abs=1e-12)


def test_limits_are_where_the_bound_reaches_log_n():
    terms = dataclasses.replace(TERMS, slack=None, empirical_loss=1.5, information=7.0)
    found, log_n = limits(terms), math.log(2112)

    def total(**changes):
        return valid_bound(dataclasses.replace(terms, **changes)).total

    assert found.least == total(kl=0.0) > 1.5
    assert total(kl=found.affordable_kl * 0.999) < log_n < total(kl=found.affordable_kl * 1.001)
    needed = found.needed_samples
    assert total(num_samples=needed) < log_n <= total(num_samples=needed - 1)
    assert not found.information_counts
    assert total(information=7.6) == total()  # more information changes nothing
    rich = dataclasses.replace(terms, information=3.0)
    assert limits(rich).information_counts
    hopeless = limits(dataclasses.replace(terms, empirical_loss=8.0))
    assert (hopeless.needed_samples, hopeless.affordable_kl) == (None, None)
    few = limits(dataclasses.replace(terms, num_samples=100))
    assert few.affordable_kl is None and few.needed_samples == needed


def test_limits_at_the_sizes_of_the_paper_by_hand():
    text, multimodal = paper_sizes()
    # B = log 1535 + 2 / 0.03 = 74.002953; constant log(2 sqrt(276000) / 0.05) = 9.952958.
    assert text["least"] == pytest.approx(74.002953 * math.sqrt(9.952958 / 552_000), abs=1e-5)
    kl = 552_000 * (math.log(1536) / 74.002953) ** 2 - 9.952958
    assert text["affordable_kl"] == pytest.approx(kl, rel=1e-6)
    assert multimodal["num_candidates"] == 2 * 1056
    assert text["needed_samples"] < 1000


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
        _line(name="c", information=99.0, empirical_loss=0.7, invalid=["same data"]),
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    runs = bound_runs.read_runs(str(file))
    assert runs[0].terms.information == 2.0
    rows = [bound_runs.compare(run) for run in runs]
    assert rows[0]["slack"] == rows[0]["paper_slack"] == pytest.approx(3 - math.log(64) + 2)
    # Of the clipped information, and of that which the printed formula takes.
    assert rows[2]["slack"] == pytest.approx(0.7)
    assert rows[2]["paper_slack"] == pytest.approx(0.7 - math.log(64) + 99)
    assert rows[1]["valid"] == valid_bound(runs[1].terms).total
    assert [row["invalid"] for row in rows] == [[], [], ["same data"]]
    assert [row["clipped"] for row in rows] == [False, False, True]
    assert rows[0]["warm_start"] == pytest.approx(3.0)
    bound_figure.draw(rows, tmp_path)
    assert (tmp_path / "bound.png").stat().st_size > 5000
    svg = (tmp_path / "bound.svg").read_text()
    assert "held-out loss" in svg and "hollow: no bound" in svg


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (_line(slack=0.0), "lacks 'unconditional_loss'"),
        (_line(information=1.0, slack=0.0, empirical_loss=1.0), "give the slack that is assumed"),
        (_line(information=1.0, slack=0.0, run="none"), "none is no run folder"),
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
        bound_runs.read_runs(str(file))
