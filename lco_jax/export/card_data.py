"""The metadata of a model card: base model, licence, data, languages, measures.

Source: the specification of model cards of the Hugging Face hub (`ModelCardData`, `EvalResult`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub

from lco_jax.config import TableSource, TfdsSource, TrainConfig
from lco_jax.config.data import Source
from lco_jax.data.sources.datasets import describe_dataset
from lco_jax.data.sources.files import stem_of
from lco_jax.train.metrics import read_evaluations

_LIBRARIES = {"merged": "transformers"}
"""Where it is not called as the format is."""
_PIPELINES = {"sentence-transformers": "sentence-similarity"}
"""Where it is not the extraction of features."""
_MEASURES = {
    "mrr": ("mrr", "MRR"),
    "ndcg@10": ("ndcg_at_10", "nDCG@10"),
    "recall@1": ("recall_at_1", "Recall@1"),
    "recall@10": ("recall_at_10", "Recall@10"),
}
"""Of an evaluation of a run, with its type and name on the hub."""


def training_record(workdir: str, config: TrainConfig, step: int) -> dict[str, Any]:
    """What a run was trained and evaluated on, for the export's own record."""
    known = {source: _describe(source) for source in config.data.sources}
    record: dict[str, Any] = {
        "datasets": list(dict.fromkeys(name for name, _ in known.values())),
        "languages": list(dict.fromkeys(code for _, codes in known.values() for code in codes)),
        "audio_features": config.data.media.audio_features,
        "image_features": config.data.media.image_features,
        "evaluation": None,
    }
    measured = read_evaluations(workdir).get(step, {})
    values = {name: measured[name] for name in _MEASURES if name in measured}
    if config.evaluation and values:
        source = config.evaluation.source
        record["evaluation"] = {
            "dataset": _describe(source)[0],
            "split": source.split if isinstance(source, TfdsSource) else "test",
            "values": values,
        }
    return record


def _describe(source: Source) -> tuple[str, tuple[str, ...]]:
    if isinstance(source, TfdsSource):
        return describe_dataset(source.name)
    return stem_of(source.paths[0] if isinstance(source, TableSource) else source.path), ()


def card_data(
    record: Mapping[str, Any], base_folder: Path, base_model: str | None, title: str
) -> huggingface_hub.ModelCardData:
    """The metadata of an export.

    Args:
        record: the content of its `lco_jax.json`.
        base_folder: local files of the base model, whose card may name a licence and languages.
        base_model: its name on the hub, if it has one.
        title: what the model is called.
    """
    form, training = record["format"], record["training"] or {}
    of_base = _card_of(base_folder)
    results = _results(training.get("evaluation"))
    languages = [*_listed(of_base.get("language")), *training.get("languages", ())]
    return huggingface_hub.ModelCardData(
        base_model=base_model,
        base_model_relation="adapter" if form == "peft" else "finetune" if base_model else None,
        license=of_base.get("license"),
        license_name=of_base.get("license_name"),
        license_link=of_base.get("license_link"),
        language=list(dict.fromkeys(languages)) or None,
        datasets=training.get("datasets") or None,
        library_name=_LIBRARIES.get(form, form),
        pipeline_tag=_PIPELINES.get(form, "feature-extraction"),
        tags=_tags(record["modalities"], form),
        model_name=title if results else None,
        eval_results=results,
    )


def _tags(modalities: Iterable[str], form: str) -> list[str]:
    kinds = [kind for kind in modalities if kind != "text"]
    tags = ["lco-emb", "embeddings", "text-embeddings", *(f"{kind}-embeddings" for kind in kinds)]
    return [*tags, *(["multimodal"] if kinds else []), form]


def _results(evaluation: Mapping[str, Any] | None) -> list[huggingface_hub.EvalResult] | None:
    if evaluation is None:
        return None
    return [
        huggingface_hub.EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_type="unknown",
            dataset_name=evaluation["dataset"],
            dataset_split=evaluation["split"],
            metric_type=_MEASURES[name][0],
            metric_name=_MEASURES[name][1],
            metric_value=round(value, 4),
        )
        for name, value in evaluation["values"].items()
    ]


def _card_of(folder: Path) -> dict[str, Any]:
    card = folder / "README.md"
    return huggingface_hub.ModelCard.load(card).data.to_dict() if card.exists() else {}


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
