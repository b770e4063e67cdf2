"""Compiled programs are kept between starts, for every program."""

from dataclasses import dataclass
from pathlib import Path

from lco_jax.cli.folders import usable

_FOLDER = "~/.cache/lco_jax/xla"


@dataclass(frozen=True, kw_only=True)
class Compilations:
    """The option of the programs that compile."""

    compilation_cache: str = _FOLDER
    """Where compiled programs are kept between starts, local or gs:// (one for all hosts); `none`
    keeps none."""

    def keep_compilations(self) -> None:
        """Let JAX read and write them there; a folder that cannot be written to is no error."""
        import jax

        if self.compilation_cache == "none":
            return
        folder = self.compilation_cache
        if "://" not in folder:
            path = usable(
                Path(folder), "compiled programs are not kept", option="--compilation-cache"
            )
            if path is None:
                return
            folder = str(path)
        jax.config.update("jax_compilation_cache_dir", folder)
        # Small programs are compiled at every start, too, and there are many of them.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
