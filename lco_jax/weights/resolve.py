"""A model by name: its folder, which is fetched from the hub if it is not here."""

from pathlib import Path

import huggingface_hub

from lco_jax.models.adapter_config import (
    ADAPTER_CONFIG,
    is_adapter,
    local_base,
    read_adapter_config,
)
from lco_jax.models.config import read_config
from lco_jax.weights.access import HubAccess, check_name
from lco_jax.weights.joined import check_files, join


def resolve_folder(
    model: str | Path, revision: str | None = None, access: HubAccess | None = None
) -> Path:
    """The local folder of a model: the folder itself, or a download of the hub id. Of an adapter,
    a folder that joins it with its base model.

    Raises:
        FileNotFoundError: neither a folder nor a model that the hub (or its cache) gives.
        ValueError: a model on the hub that is not supported (its weights are then not fetched), or
            an adapter that is not.
    """
    folder = _fetch(model, revision, access)
    return _join(folder, access) if is_adapter(folder) else folder


def _fetch(model: str | Path, revision: str | None, access: HubAccess | None) -> Path:
    check_name(model)
    if Path(model).is_dir():
        return Path(model)
    described = _download(str(model), revision, ["config.json", ADAPTER_CONFIG], access)
    if is_adapter(described):
        read_adapter_config(described)
    elif (described / "config.json").exists():
        read_config(described)
    patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "spk_dict.pt"]
    return _download(str(model), revision, patterns, access)


def _join(adapter: Path, access: HubAccess | None) -> Path:
    settings = read_adapter_config(adapter)
    check_files(adapter)
    name = settings.base_model_name_or_path
    base = local_base(adapter, settings)
    said = f"{adapter / ADAPTER_CONFIG}: base_model_name_or_path={name!r}"
    try:
        base = base or _fetch(name, settings.revision, access)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{said} is not here: {error}; write where the base model is"
        ) from error
    if is_adapter(base):
        raise ValueError(
            f"{said} is an adapter, too: export it as a model (launch/export.py --format merged) "
            "and write the name of that"
        )
    return join(adapter, base)


def _download(
    model: str, revision: str | None, patterns: list[str], access: HubAccess | None
) -> Path:
    options = (access or HubAccess()).options()
    try:
        folder = huggingface_hub.snapshot_download(
            model, revision=revision, allow_patterns=patterns, **options
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"model {model!r} (revision {revision or 'main'}) is no local folder and could not be "
            f"fetched from the hub: {error}"
        ) from error
    return Path(folder)
