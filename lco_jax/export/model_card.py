"""The README.md of an export: what it is, how to use it, how well it was checked."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from lco_jax.export.card_data import card_data
from lco_jax.models.families import Family

_INPUTS = {"text": "texts", "image": "images", "video": "videos", "audio": "audio"}
_OTHER_MEDIA = ("video", "audio")
"""That the default processor of sentence-transformers does not take."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_card(
    folder: Path, record: Mapping[str, Any], *, family: Family, base_folder: Path
) -> None:
    """Write the model card of an export.

    Args:
        record: the content of its `lco_jax.json`.
        base_folder: local files of the base model, whose card may name a licence and languages.
    """
    base_model = record["base_model"]
    hub_id = base_model if _HUB_ID.fullmatch(base_model) else None
    title = record["run"] or Path(base_model).name
    data = card_data(record, base_folder, hub_id, title)
    readable = family.readable_kinds(record["markup"], record["media"]["after_video"])
    has_media = len(record["modalities"]) > 1
    videos_differ = "video" in record["modalities"] and not family.torch_places_videos(
        record["media"]["after_video"]
    )
    # Markdown, whose text no HTML escapes.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lco_jax", "export"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    body = environment.get_template("README.md.j2").render(
        **{**record, "prompts": _by_prompt(record["prompts"])},
        title=title,
        inputs=[_INPUTS[kind] for kind in record["modalities"]],
        origin=_origin(record),
        has_media=has_media,
        videos_differ=videos_differ,
        model_class=family.torch_class,
        hub_id=hub_id,
        other_media=[_INPUTS[kind] for kind in _OTHER_MEDIA if kind in readable],
        measures=data.eval_results or [],
        read_as_texts=" and ".join(_read_as_texts(record)),
    )
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n{body}", encoding="utf-8")


def _by_prompt(prompts: Mapping[str, str]) -> dict[str, list[str]]:
    """What each prompt follows."""
    followed: dict[str, list[str]] = {}
    for kinds, prompt in prompts.items():
        followed.setdefault(prompt.strip(), []).append(kinds)
    return followed


def _read_as_texts(record: Mapping[str, Any]) -> list[str]:
    """The media that the run itself reads otherwise than transformers, and so than the export."""
    training = record["training"] or {}
    names = {"image": "images", "audio": "audio"}
    return [
        name
        for kind, name in names.items()
        if kind in record["modalities"] and training.get(f"{kind}_features", "all") != "all"
    ]


def _origin(record: Mapping[str, Any]) -> str:
    kind = "training all weights of its decoder"
    if lora := record["lora"]:
        kind = f"LoRA factors of rank {lora['rank']} and alpha {lora['alpha']:g} on its decoder"
    count = record["step"] or 0
    return f"{count:,} step{'s' if count != 1 else ''} of contrastive refinement ({kind})"
