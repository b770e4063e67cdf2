"""The README.md of an export: what it is, how to use it, how well it was checked."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub

from lco_jax.models.families import Family

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_LIBRARIES = {
    "merged": "transformers",
    "peft": "peft",
    "sentence-transformers": "sentence-transformers",
}

_PIPELINES = {
    "merged": "feature-extraction",
    "peft": "feature-extraction",
    "sentence-transformers": "sentence-similarity",
}

_LOADING = {
    "merged": """\
from transformers import AutoTokenizer, {model_class}

tokenizer = AutoTokenizer.from_pretrained(folder)
model = {model_class}.from_pretrained(folder).model.eval()""",
    "peft": """\
from peft import PeftModel
from transformers import AutoTokenizer, {model_class}

base = {model_class}.from_pretrained("{base_path}")
PeftModel.from_pretrained(base, folder)
tokenizer = AutoTokenizer.from_pretrained("{base_path}", padding_side="left")
model = base.model.eval()""",
}

_USAGE = """\
```python
import json

import torch
{loading}
with open(f"{{folder}}/lco_jax.json") as file:
    recipe = json.load(file)


def turn(text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) > recipe["max_text_tokens"]:
        ids = ids[: recipe["max_text_tokens"]]
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return recipe["template_head"] + text + recipe["prompt"] + recipe["template_tail"]


def embed(texts):
    turns = [turn(text) for text in texts]
    inputs = tokenizer(turns, add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**inputs).last_hidden_state[:, -1]
    return torch.nn.functional.normalize(states.float(), dim=-1)
```
"""

_SENTENCE_USAGE = """\
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(folder)


def embed(texts):
    return model.encode(texts)
```

Only texts are taken, and the prompt is applied to each of them; do not add one. Texts beyond
{max_text_tokens} tokens are cut by tokens, where lco_jax tokenises the cut text once more: the
vectors of such texts may differ a little.
"""

_MEDIA_SENTENCE_USAGE = """\
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(folder)  # needs torchvision


def embed(items):
    return model.encode(items)
```

An item is a text, an image of Pillow, or several parts: `{{"text": "a page", "image": [a, b]}}`.
A string that is the path or address of a medium is read as one; `{{"text": string}}` is not.
{clips}The prompt is applied to each item; do not add one. Pillow scales images, as in lco_jax.
Texts are not cut here.

Texts alone need no torchvision, and are cut:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(folder, processor_kwargs={{"subfolder": "text"}})


def embed(texts):
    return model.encode(texts)
```

Texts beyond {max_text_tokens} tokens are cut by tokens, where lco_jax tokenises the cut text once
more: the vectors of such texts may differ a little.
"""

_CLIPS = """\
A clip is its sampled frames, {video_fps:g} a second (in lco_jax at most {video_max_frames}):
`{{"video": {{"array": frames, "video_metadata": {{"fps": 2.0, "total_num_frames": 8,
"frames_indices": [0, 1, 2, 3, 4, 5, 6, 7]}}}}}}`. torchvision scales them, which gives some pixels
another grey level than Pillow.
"""

_NO_CLIPS = "Clips are refused: see the recipe.\n"

_MEDIA_USAGE = """
With media, a turn is `template_head`, the `markup` of each medium (its token repeated once for
each feature), the text, the prompt and `template_tail` of `lco_jax.json`. `AutoProcessor` has the
sizes of images and frames (in this folder: not of an adapter), and needs torchvision.
"""

_POSITIONS = """\
The text behind a clip goes on behind its last position, as the model was trained. transformers 5
gives it other positions: pass `position_ids` with clips, or use lco_jax.
"""

_BODY = """
# {title}

Unit vectors of {dimension} dimensions from {base_model},
{origin}.
Made with lco_jax in the manner of LCO-Emb (language-centric omnimodal embedding).
Reads: {modalities}.

## Use

With `folder` the path of this folder:

{usage}
{also}
## Recipe

An item, its text cut to {max_text_tokens} tokens, becomes one user turn of the chat template,
followed by

{prompts}

{positions}The vector is the state of the last token after the final norm, scaled to length 1.
`lco_jax.json` has the turn word for word. `golden.json` has token ids and
vectors of a few texts, to check a server with.

## Verification

{verification}
"""

_EMBEDDER = "lco_jax itself: `Embedder(folder).encode(texts)`.\n"


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
        library_name=_LIBRARIES[form],
        license=_licence(base_folder),
        pipeline_tag=_PIPELINES[form],
        tags=["lco-emb", "text-embeddings", form],
    )
    has_media = len(record["modalities"]) > 1
    clips_differ = "video" in record["modalities"] and not family.torch_places_videos(
        record["media"]["after_video"]
    )
    if form != "sentence-transformers":
        loading = _LOADING[form].format(model_class=family.torch_class, base_path=base_path)
        usage = _USAGE.format(loading=loading) + (_MEDIA_USAGE if has_media else "")
    elif has_media:
        clips = _NO_CLIPS if clips_differ else _CLIPS.format(**record["media"])
        usage = _MEDIA_SENTENCE_USAGE.format(clips=clips, **record)
    else:
        usage = _SENTENCE_USAGE.format(**record)
    body = _BODY.format(
        dimension=record["dimension"],
        base_model=base_model,
        max_text_tokens=record["max_text_tokens"],
        modalities=", ".join(record["modalities"]),
        prompts=_prompts(record["prompts"]),
        positions=_POSITIONS if clips_differ else "",
        title=record["run"] or Path(base_model).name,
        origin=_origin(record),
        usage=usage,
        also="" if form == "peft" else _EMBEDDER,
        verification=_verification(record["verification"]),
    )
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n{body}", encoding="utf-8")


def _prompts(prompts: Mapping[str, str]) -> str:
    """Each prompt once, with what it follows."""
    followed: dict[str, list[str]] = {}
    for kinds, prompt in prompts.items():
        followed.setdefault(prompt.strip(), []).append(kinds)
    if len(followed) == 1:
        return f"    {next(iter(followed))}"
    return "\n".join(f"- `{prompt}` ({', '.join(kinds)})" for prompt, kinds in followed.items())


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


def _verification(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "Not verified: exported with `--no-verify`."
    if not found["passed"]:
        return "\n".join(["**Failed; do not use this folder.**", "", *found["failures"]])
    rows = [
        f"| {row['reader']} | {row['modality']} | {row['count']} "
        f"| {row['min_cosine']:.7f} | {row['mean_cosine']:.7f} |"
        for row in found["comparisons"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join(
        [
            "Cosine between the vectors that this folder gives in torch (float32;",
            f"{versions}) and those of the model in JAX:",
            "",
            "| reader | modality | items | lowest | mean |",
            "|---|---|---|---|---|",
            *rows,
            *(["", f"Not compared: {found['not_compared']}."] if found["not_compared"] else []),
        ]
    )
