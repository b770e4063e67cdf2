"""The names of the metrics of alignment; apart, so that a help text needs no arrays."""

from typing import Literal, get_args

Metric = Literal[
    "mutual_knn",
    "cycle_knn",
    "lcs_knn",
    "edit_distance_knn",
    "cknna",
    "cka",
    "unbiased_cka",
    "svcca",
]
METRICS: tuple[Metric, ...] = get_args(Metric)
