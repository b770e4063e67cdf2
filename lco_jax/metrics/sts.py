"""Semantic similarity: do cosines of pairs rise with the similarity that people gave them?"""

import numpy as np
import scipy.stats
from jaxtyping import Float


def sts_metrics(
    first: Float[np.ndarray, "N E"], second: Float[np.ndarray, "N E"], gold: Float[np.ndarray, "N"]
) -> dict[str, float]:
    """`cosine_spearman` and `cosine_pearson` of unit vectors, pair by pair.

    Cosines that are all equal order nothing and score 0.

    Raises:
        ValueError: fewer than two pairs, unequal numbers, equal gold scores, or broken vectors.
    """
    if not len(first) == len(second) == len(gold) >= 2:
        raise ValueError(
            f"got {len(first)} and {len(second)} vectors and {len(gold)} scores; all must be as "
            "many, at least 2"
        )
    gold = np.asarray(gold, np.float64)
    if np.ptp(gold) == 0:
        raise ValueError(f"all gold scores are {gold[0]}; nothing can correlate with them")
    cosines = np.einsum("ne,ne->n", first, second, dtype=np.float64)
    if not np.isfinite(cosines).all():
        raise ValueError(f"pair {np.argmin(np.isfinite(cosines))} has values that are not finite")
    if np.ptp(cosines) == 0:
        return {"cosine_spearman": 0.0, "cosine_pearson": 0.0}
    return {
        "cosine_spearman": float(scipy.stats.spearmanr(cosines, gold).statistic),
        "cosine_pearson": float(scipy.stats.pearsonr(cosines, gold).statistic),
    }
