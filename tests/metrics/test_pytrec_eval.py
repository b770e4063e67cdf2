"""Our retrieval metrics against trec_eval."""

import numpy as np
import pytest
import pytrec_eval

from lco_jax.metrics.retrieval import query_scores, relevant_ranks, retrieval_metrics


@pytest.mark.parametrize("seed", range(20))
def test_equals_trec_eval(seed):
    rng = np.random.default_rng(seed)
    num_queries, num_documents, width = rng.integers(3, 30), rng.integers(12, 80), 16
    queries, documents = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for vectors in (
            rng.normal(size=(n, width)).astype(np.float32) for n in (num_queries, num_documents)
        )
    )
    relevant = rng.integers(num_documents, size=num_queries)
    qrels = {f"q{i}": {f"d{document}": 1} for i, document in enumerate(relevant)}
    cosines = queries.astype(np.float64) @ documents.T
    run = {f"q{i}": {f"d{j}": float(c) for j, c in enumerate(row)} for i, row in enumerate(cosines)}
    measures = {"recall.1,5,10", "ndcg_cut.5,10", "recip_rank"}
    expected = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)

    scores = query_scores(relevant_ranks(queries, documents, relevant), (1, 5, 10))
    scores["ndcg@5"] = query_scores(relevant_ranks(queries, documents, relevant), (5,))["ndcg@5"]
    names = {"recall_1": "recall@1", "recall_5": "recall@5", "recall_10": "recall@10"}
    names |= {"ndcg_cut_5": "ndcg@5", "ndcg_cut_10": "ndcg@10", "recip_rank": "mrr"}
    for theirs, ours in names.items():
        values = [expected[f"q{i}"][theirs] for i in range(num_queries)]
        np.testing.assert_allclose(scores[ours], values, atol=1e-6)
    means = retrieval_metrics(queries, documents, relevant)
    values = [expected[f"q{i}"]["ndcg_cut_10"] for i in range(num_queries)]
    assert means["ndcg@10"] == pytest.approx(np.mean(values), abs=1e-6)
