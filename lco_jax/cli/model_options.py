"""The options that say which model a program embeds with."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lco_jax.config import ProfileName
from lco_jax.weights.access import check_name

if TYPE_CHECKING:
    from lco_jax.embed.embedder import Embedder

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What embedding, search and evaluation ask of a model."""

    model: str
    """Hub folder, hub id, adapter folder or run folder."""
    checkpoint: int | None = None
    """Step of a run folder (default: the best evaluated one, else the last)."""
    profile: ProfileName | None = None
    """Prompt recipe (default: that of the run or export)."""
    dtype: Literal["bfloat16", "float32"] | None = None
    """Of weights and activations."""
    control_tokens: Literal["characters", "tokens"] | None = None
    """What `<|im_end|>` and the like mean in texts (default: as in the run, else characters)."""
    truncate_dim: int | None = None
    """Keep the first dimensions and normalise again."""

    def announce(self) -> None:
        """Say that the model is read, before the libraries are, which takes seconds.

        Raises:
            FileNotFoundError: its name can be none of a model.
            ValueError: vectors are asked for that none can have.
        """
        from lco_jax.embed.arguments import check_positive

        check_positive("truncate_dim", self.truncate_dim)
        if "://" not in self.model:
            check_name(self.model)
        log.info("reading the model %s", self.model)

    def open(self, **more: Any) -> "Embedder":
        """The model, with further arguments of `Embedder`.

        Raises:
            FileNotFoundError: no such model.
            ValueError: it cannot be opened so.
        """
        from lco_jax.embed.embedder import Embedder

        return Embedder(
            self.model,
            checkpoint=self.checkpoint,
            profile=self.profile,
            dtype=self.dtype,
            control_tokens=self.control_tokens,
            truncate_dim=self.truncate_dim,
            **more,
        )
