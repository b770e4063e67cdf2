"""LCO-Emb in JAX: language-centric omnimodal embedding models, from one CPU to TPU pods.

from lco_jax import Embedder
vectors = Embedder("runs/quickstart/refine").encode(["a small cat", "a large dog"])
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lco_jax.embed.embedder import Embedder

__all__ = ["Embedder", "__version__"]

try:
    __version__ = version("lco_jax")
except PackageNotFoundError:  # a copy of the source that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str):
    # Imported when asked for, so that `import lco_jax.config` stays quick.
    if name == "Embedder":
        from lco_jax.embed.embedder import Embedder

        return Embedder
    raise AttributeError(f"module 'lco_jax' has no attribute {name!r}")
