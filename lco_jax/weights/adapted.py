"""The tensors of a model folder, those of a base model with an adapter among them.

Source: peft `merge_and_unload`: of a linear layer W + s B A, in the layout of the hub.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from lco_jax.models.adapter_config import ADAPTER_WEIGHTS, MERGE, read_adapter_config
from lco_jax.models.config import read_config
from lco_jax.weights.adapter_tensors import fit
from lco_jax.weights.files import Pick, SafetensorsFile, SafetensorsFolder
from lco_jax.weights.finite import count_not_finite
from lco_jax.weights.joined import is_joined, parts_of


def open_weights(folder: Path) -> SafetensorsFolder:
    """All tensors of a model folder, as an adapter changes them if it was joined with one.

    Raises:
        FileNotFoundError: no safetensors weights, or a shard of the index is missing.
        ValueError: a file is damaged, index and files disagree, or the adapter does not fit.
    """
    return AdaptedFolder(folder) if is_joined(folder) else SafetensorsFolder(folder)


class AdaptedFolder(SafetensorsFolder):
    """The tensors of a base model, merged with those of an adapter when they are read.

    `specs` are those of the base. What `read` gives of a merged tensor is float32, rounded once by
    whoever casts it; `view` gives the dtype of the base.
    """

    def __init__(self, folder: Path):
        """Read the headers of all files, and see where each tensor of the adapter belongs.

        Args:
            folder: made by `joined.join`.

        Raises:
            FileNotFoundError, ValueError: as `open_weights`.
        """
        adapter, base = parts_of(folder)
        super().__init__(base)
        self._adapter = SafetensorsFile(adapter / ADAPTER_WEIGHTS)
        settings, config = read_adapter_config(adapter), read_config(folder)
        found, problems = fit(self._adapter.specs, self.specs, settings, config)
        if problems:
            raise ValueError(
                f"{self._adapter.path} does not fit the base model {base}; write the one that it "
                f"was trained on into adapter_config.json (base_model_name_or_path), or {MERGE}:\n"
                + "\n".join(problems)
            )
        self._factors, self._replaced = found.factors, found.replaced

    @property
    def paths(self) -> list[Path]:
        """Of the files of both."""
        return [*super().paths, self._adapter.path]

    def view(self, name: str) -> Shaped[np.ndarray, "..."]:
        """A tensor's values in the dtype of the base, read-only."""
        if name not in self._factors and name not in self._replaced:
            return super().view(name)
        (values,) = self.read(name, [lambda whole: whole])
        values = values.astype(self.specs[name].dtype, copy=False)
        values.flags.writeable = False
        return values

    def read(
        self, name: str, picks: Sequence[Pick], **options: Any
    ) -> list[Shaped[np.ndarray, "..."]]:
        """Parts of a tensor, as `SafetensorsFile.read`; of a merged one the whole is read.

        Raises:
            ValueError: a value of a factor is NaN or infinite.
        """
        if name not in self._factors:
            return self._read_plain(name, picks, **options)
        (base,) = self._read_plain(name, [lambda whole: whole], **options)
        factors = self._factors[name]
        merged = self._factor(factors.b) @ self._factor(factors.a)
        merged *= np.float32(factors.scale)
        merged += base.astype(np.float32, copy=False)
        return [pick(merged) for pick in picks]

    def _read_plain(
        self, name: str, picks: Sequence[Pick], **options: Any
    ) -> list[Shaped[np.ndarray, "..."]]:
        if name in self._replaced:
            return self._adapter.read(self._replaced[name], picks, **options)
        return super().read(name, picks, **options)

    def _factor(self, name: str) -> Float[np.ndarray, "rows columns"]:
        (values,) = self._adapter.read(name, [lambda whole: whole])
        if count := count_not_finite(values):
            raise ValueError(
                f"{self._adapter.path}: tensor {name!r}: {count} of {values.size} values are NaN "
                "or infinite: the run that wrote them diverged, or the file is damaged; take an "
                "earlier checkpoint of it, or fetch it again"
            )
        return values.astype(np.float32, copy=False)

    def file(self, name: str) -> Path:
        """Where a tensor is; of a merged one the base's."""
        return self._adapter.path if name in self._replaced else super().file(name)
