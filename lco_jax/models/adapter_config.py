"""`adapter_config.json`: which model a low-rank adapter refines, and how much of which modules.

Source: peft `LoraConfig`, `check_target_module_exists`, `get_pattern_key`.
"""

import json
import math
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from lco_jax.models.field_types import Size
from lco_jax.models.json_files import Schema, check, read_object

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

MERGE = (
    "merge it with peft (merge_and_unload, then save_pretrained) and give the folder of the result"
)
_MAX_PATTERNS = 4096
"""Of ranks and alphas; large models have a thousand modules."""
_MAX_REPEATS = 3
"""In one pattern: matching takes at most so high a power of a name's length, plus one."""
_MAX_NAME = 128
"""Characters of a module's path."""
_MODULE_INDEX = re.compile(r".*?\.[^.]*\.(\d+)\.")
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal")
"""How factors are drawn at the start of a training that leaves the base as it is."""


def _check_pattern(pattern: str) -> str:
    """A pattern that Python can match in a short time, whatever name it is tried on."""
    repeats = re.sub(r"\\.", "", pattern)
    if re.search(r"\)[*+{]", repeats) or len(re.findall(r"[*+{]", repeats)) > _MAX_REPEATS:
        raise ValueError(
            f"repeats a group, or more than {_MAX_REPEATS} things, which may take very long to "
            "match; write names of modules"
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return pattern


def _check_start(name: str) -> str:
    if name not in _PLAIN_STARTS:
        raise ValueError(f"changes the base model; expected true, false or one of {_PLAIN_STARTS}")
    return name


_Name = Annotated[str, Field(min_length=1)]
_AnyPattern = Annotated[str, Field(max_length=1 << 16), AfterValidator(_check_pattern)]
_Pattern = Annotated[_AnyPattern, Field(min_length=1)]
_Alpha = Annotated[float, Field(gt=0, le=1e9)]
_Off = Literal[False] | None
_NOT_READ = f"is not read; {MERGE}"


class AdapterConfig(Schema):
    """What of `adapter_config.json` is read, and what would change the results and is not.

    `fan_in_fan_out` is not among it: peft itself turns it off for linear layers.
    """

    peft_type: Literal["LORA"] = Field(description=f"other adapters are not read; {MERGE}")
    base_model_name_or_path: _Name = Field(
        description="give the hub name or the folder of the model that the adapter refines"
    )
    revision: str | None = None
    r: Size
    lora_alpha: _Alpha
    use_rslora: bool | None = None
    rank_pattern: Annotated[dict[_Pattern, Size], Field(max_length=_MAX_PATTERNS)] | None = None
    alpha_pattern: Annotated[dict[_Pattern, _Alpha], Field(max_length=_MAX_PATTERNS)] | None = None
    target_modules: _Name | Annotated[list[_Name], Field(min_length=1)]
    layers_to_transform: int | list[int] | None = None
    layers_pattern: _AnyPattern | list[_AnyPattern] | None = None
    modules_to_save: list[_Name] | None = None
    init_lora_weights: bool | Annotated[str, AfterValidator(_check_start)] | None = Field(
        None,
        description="save the adapter as one of the plain base (save_pretrained of peft with "
        f"path_initial_model_for_weight_conversion), or {MERGE}",
    )
    bias: Literal["none"] | None = Field(None, description=f"trained biases are not read; {MERGE}")
    use_dora: _Off = Field(None, description=f"DoRA {_NOT_READ}")
    lora_bias: _Off = Field(None, description=f"a bias of the factors {_NOT_READ}")
    use_qalora: _Off = Field(None, description=f"QALoRA {_NOT_READ}")
    use_bdlora: None = Field(None, description=f"BD-LoRA {_NOT_READ}")
    trainable_token_indices: None = Field(None, description=f"trained tokens {_NOT_READ}")
    layer_replication: None = Field(None, description=f"replicated layers are not read; {MERGE}")
    target_parameters: Annotated[list[str], Field(max_length=0)] | None = Field(
        None, description=f"factors of parameters are not read; {MERGE}"
    )
    alora_invocation_tokens: None = Field(
        None, description="adapters that tokens switch on are not supported"
    )
    arrow_config: None = Field(None, description="mixtures of adapters are not supported")
    kasa_config: None = Field(None, description=f"KaSA {_NOT_READ}")
    monteclora_config: None = Field(None, description=f"MonteCLoRA {_NOT_READ}")
    megatron_config: None = Field(None, description=f"the layout of Megatron {_NOT_READ}")

    def rank(self, module: str) -> int:
        """Of the factors of a module, by its path in the model that was adapted."""
        return _of_pattern(self.rank_pattern or {}, module, self.r)

    def scale(self, module: str) -> float:
        """By which the product of a module's factors is multiplied."""
        alpha = _of_pattern(self.alpha_pattern or {}, module, self.lora_alpha)
        rank = self.rank(module)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def targets(self, module: str) -> bool:
        """Whether the adapter is of a module; peft leaves factors of others unread.

        A pattern is not tried: peft writes factors of what it matches, and strangers may write one
        that takes hours.
        """
        if isinstance(self.target_modules, str):
            return True
        if not any(f".{module}".endswith(f".{name}") for name in self.target_modules):
            return False
        layers = self.layers_to_transform
        if layers is None or layers == []:
            return True
        return self._layer(module) in (layers if isinstance(layers, list) else [layers])

    def _layer(self, module: str) -> int | None:
        patterns = self.layers_pattern or []
        patterns = [patterns] if isinstance(patterns, str) else patterns
        tried = [re.compile(rf"(?:^|.*?\.){pattern}\.(\d+)\.") for pattern in patterns]
        matches = (pattern.match(module) for pattern in tried or [_MODULE_INDEX])
        match = next((match for match in matches if match), None)
        return int(match[1]) if match else None

    def saves(self, tensor: str) -> bool:
        """Whether a tensor is of a module that was trained as a whole: peft compares the ends of
        modules' paths, so that `norm` names `input_layernorm`, too.
        """
        return any(f"{name}." in tensor for name in self.modules_to_save or ())

    def describe(self) -> str:
        """What weights depend on: all but where the base model is."""
        kept = self.model_dump(exclude={"base_model_name_or_path", "revision"}, exclude_none=True)
        return json.dumps(kept, sort_keys=True)


_T = TypeVar("_T")


def _of_pattern(values: dict[str, _T], module: str, otherwise: _T) -> _T:
    """The value of the first pattern that the end of a module's path matches."""
    if values and len(module) > _MAX_NAME:
        raise ValueError(f"module {module!r}: a name of more than {_MAX_NAME} characters")
    for pattern, value in values.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of a model, and no model by itself."""
    return (folder / ADAPTER_CONFIG).exists()


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The settings of the adapter in `folder`.

    Raises:
        ValueError: they are damaged, or of an adapter that is not supported.
    """
    file = folder / ADAPTER_CONFIG
    return check(AdapterConfig, read_object(file), file)


def local_base(folder: Path, settings: AdapterConfig) -> Path | None:
    """The folder of an adapter's base model: as seen from the adapter's folder, or from where the
    program runs; None if neither is there, and it may be on the hub.

    Raises:
        ValueError: both are there.
    """
    name = settings.base_model_name_or_path
    if "\0" in name:
        return None
    found = [path for path in (folder / name, Path(name)) if path.is_dir()]
    if len(found) == 2 and not found[0].samefile(found[1]):
        raise ValueError(
            f"{folder / ADAPTER_CONFIG}: base_model_name_or_path={name!r} may be {found[0]} or "
            f"{found[1].absolute()}; write the whole path"
        )
    return found[0] if found else None
