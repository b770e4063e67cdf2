"""LCO-Emb in JAX: language-centric omnimodal embedding models, from one CPU to TPU pods.

from lco_jax import Embedder
vectors = Embedder("runs/quickstart/refine").encode(["a small cat", "a large dog"])
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lco_jax.embed.embedder import Embedder

__all__ = ["Embedder"]


def __getattr__(name: str):
    # Imported when asked for, so that `import lco_jax.config` stays quick.
    if name == "Embedder":
        from lco_jax.embed.embedder import Embedder

        return Embedder
    raise AttributeError(f"module 'lco_jax' has no attribute {name!r}")
