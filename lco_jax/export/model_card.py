"""The README.md of an export: what it is, how to use it, how well it was checked."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import jinja2

from lco_jax.models.families import Family

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_LIBRARIES = {"merged": "transformers"}
"""Where it is not called as the format is."""
_PIPELINES = {"sentence-transformers": "sentence-similarity"}
"""Where it is not the extraction of features."""


def write_card(
    folder: Path, record: Mapping[str, Any], *, family: Family, base_path: str, base_folder: Path
) -> None:
    """Write the model card of an export.

    Args:
        record: the content of its `lco_jax.json`.
        base_path: where a user finds the base model of an adapter.
        base_folder: local files of the base model; its card may name a licence.
    """
    form = record["format"]
    base_model = record["base_model"]
    data = huggingface_hub.ModelCardData(
        base_model=base_model if _HUB_ID.fullmatch(base_model) else None,
        library_name=_LIBRARIES.get(form, form),
        license=_licence(base_folder),
        pipeline_tag=_PIPELINES.get(form, "feature-extraction"),
        tags=["lco-emb", "text-embeddings", form],
    )
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
        title=record["run"] or Path(base_model).name,
        origin=_origin(record),
        has_media=has_media,
        videos_differ=videos_differ,
        model_class=family.torch_class,
        base_path=base_path,
    )
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n{body}", encoding="utf-8")


def _by_prompt(prompts: Mapping[str, str]) -> dict[str, list[str]]:
    """What each prompt follows."""
    followed: dict[str, list[str]] = {}
    for kinds, prompt in prompts.items():
        followed.setdefault(prompt.strip(), []).append(kinds)
    return followed


def _licence(base_folder: Path) -> str | None:
    card = base_folder / "README.md"
    return huggingface_hub.ModelCard.load(card).data.license if card.exists() else None


def _origin(record: Mapping[str, Any]) -> str:
    if record["run"] is None:
        return "unchanged"
    kind = "all weights of its decoder"
    if lora := record["lora"]:
        kind = f"LoRA of rank {lora['rank']} and alpha {lora['alpha']:g} on its decoder"
    return f"refined contrastively for {record['step']} steps ({kind})"
