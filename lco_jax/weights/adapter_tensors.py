"""Where each tensor of an adapter belongs in its base model, and whether it fits there."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import jax.numpy as jnp

from lco_jax.models.adapter_config import AdapterConfig
from lco_jax.models.config import ModelConfig
from lco_jax.weights.files import TensorSpec
from lco_jax.weights.tables import HEAD, TABLES, Key, Table

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_([AB])\.weight")
_OF_BASE = ".base_layer."
"""In names of tensors of the base that peft stores beside the factors: those of an output head."""
_TIED = (HEAD.ours, "embed/table")
_MAX_LISTED = 10
"""Names per kind of an error message."""


@dataclass(frozen=True)
class Factors:
    """Of one module: the names of its factors in the adapter, and what multiplies their product."""

    a: str
    b: str
    scale: float


@dataclass(frozen=True)
class Fitted:
    """The tensors of an adapter, by the tensors of the base that they change."""

    factors: dict[str, Factors] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    """Before factors are added, if there are any."""


Specs = Mapping[str, TensorSpec]


def fit(
    specs: Specs, base: Specs, settings: AdapterConfig, config: ModelConfig
) -> tuple[Fitted, list[str]]:
    """What an adapter's tensors change, and in what they do not fit, a line for each kind.

    Args:
        specs: of the adapter's tensors.
        base: of the tensors of the base model.
        config: of the base model.
    """
    return _Fitting(specs, base, settings, config).run()


class _Fitting:
    def __init__(self, specs: Specs, base: Specs, settings: AdapterConfig, config: ModelConfig):
        self._specs, self._base, self._settings = specs, base, settings
        self._table = TABLES[config.family]
        self._held = _places(self._table, base)
        self._tied: Collection[str] = _TIED if config.text.tie_embeddings else ()
        self._found = Fitted()
        self._problems: dict[str, list[str]] = {}

    def run(self) -> tuple[Fitted, list[str]]:
        pairs: dict[str, dict[str, str]] = {}
        for name, spec in self._specs.items():
            if not jnp.issubdtype(spec.dtype, jnp.floating):
                self._complain("tensors of integers", f"{name} ({spec.dtype})")
            local = name.removeprefix(_PREFIX)
            match = _FACTOR.fullmatch(local)
            if match:
                pairs.setdefault(match[1], {})[match[2]] = name
            else:
                self._take_whole(local, name)
        for module, names in pairs.items():
            self._take_factors(module, names)
        if not pairs:
            self._complain("factors", "no lora_A and lora_B of any module")
        lines = [
            f"  {len(names)} {kind}: {', '.join(names[:_MAX_LISTED])}"
            + (", …" if len(names) > _MAX_LISTED else "")
            for kind, names in self._problems.items()
        ]
        return self._found, lines

    def _take_factors(self, module: str, names: Mapping[str, str]) -> None:
        if names.keys() != {"A", "B"}:
            self._complain("modules with one factor of two", module)
            return
        if not self._settings.targets(module):
            self._complain("modules that target_modules or layers_to_transform leave out", module)
            return
        target = self._target(f"{module}.weight", self._found.factors)
        if target is None:
            return
        wanted, rank = self._base[target].shape, self._settings.rank(module)
        a, b = (self._specs[names[letter]].shape for letter in "AB")
        if len(wanted) != 2 or (b, a) != ((wanted[0], rank), (rank, wanted[1])):
            self._complain(
                "modules whose factors have other shapes",
                f"{module} (rank {rank}, weight {wanted}, found B {b} and A {a})",
            )
        scale = self._settings.scale(module)
        self._found.factors[target] = Factors(names["A"], names["B"], scale)

    def _take_whole(self, local: str, name: str) -> None:
        if _OF_BASE in local:
            local = local.replace(_OF_BASE, ".")
        elif not self._settings.saves(local):
            self._complain("tensors that are no factors, and of no module in modules_to_save", name)
            return
        target = self._target(local, self._found.replaced)
        if target is None:
            return
        wanted, shape = self._base[target].shape, self._specs[name].shape
        if shape != wanted:
            said = f"{name} (expected {wanted}, found {shape})"
            self._complain("tensors of another shape", said)
        self._found.replaced[target] = name

    def _target(self, local: str, taken: Collection[str]) -> str | None:
        """The name in the base of what the adapter calls `local`; None if there is none."""
        key = next(iter(_places(self._table, [local])), None)
        target = self._held.get(key)
        if target is None:
            self._complain("tensors that the base model lacks", local)
        elif key[0] in self._tied:
            self._complain("tensors that token embeddings and output head share", local)
        elif target in taken:
            self._complain("tensors given twice under different names", local)
        else:
            return target
        return None

    def _complain(self, kind: str, name: str) -> None:
        self._problems.setdefault(kind, []).append(name)


def _places(table: Table, names: Iterable[str]) -> dict[Key, str]:
    """The tensors of our tree that names mean, in the decoder and in all towers."""
    found = table.assign(names)
    places = dict(found.names)
    for tower in table.towers:
        places |= table.tower(tower).assign(found.towers).names
    return places
