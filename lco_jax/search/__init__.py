"""What is nearest: exact search in vectors, and in files and texts by a model."""

from lco_jax.search.exact import cos_sim, dot_score, semantic_search

__all__ = ["cos_sim", "dot_score", "semantic_search"]
