"""Our models in mteb, and its tasks. `comparators.py` has the models that mteb itself runs.

    import mteb
    from lco_jax.evaluate.mteb_adapter import MtebEncoder
    embedder = Embedder("runs/quickstart/refine", profile="mteb")
    mteb.evaluate(MtebEncoder(embedder), mteb.get_task("STS12"))

The profile of the embedder decides the prompt: `lco` is the recipe of training, and `mteb` does
what mteb's own LCO wrapper does, with its order, prompts, bounds of pixels and frames. mteb's
instructions are not used, as in that wrapper.

Source: mteb 2.26, EncoderProtocol and LCOEmbedding.
"""

import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.media_files import write_audio, write_frames, write_image
from lco_jax.evaluate.results import OURS

if TYPE_CHECKING:
    import torch
    from mteb.abstasks.abstask import AbsTask
    from mteb.models.model_meta import ModelMeta
    from mteb.models.models_protocols import EncoderProtocol

log = logging.getLogger(__name__)

_TEXTS, _MEDIA = 4096, 64
"""Inputs that are encoded at a time: many texts pack well, media wait as files."""
# mteb's LCO wrapper: frames a second, frames and audio samples (300 s) at most.
_FPS, _MAX_FRAMES, _SAMPLING_RATE, _MAX_SAMPLES = 2.0, 64, 16_000, 4_800_000
_EMPTY = "."
"""Stands for an empty text, of which some tasks have a few and to which the profile `lco` gives no
vector."""


class MtebEncoder:
    """An `Embedder` as mteb's EncoderProtocol."""

    def __init__(self, embedder: Embedder, name: str | None = None, revision: str | None = None):
        """`name` and `revision` are what results are filed under (None: from the model)."""
        self.embedder = embedder
        self.name = name or f"{OURS}{Path(embedder.source).name}"
        self.revision = revision or embedder.revision

    @property
    def mteb_model_meta(self) -> "ModelMeta":
        """What mteb files results under and the leaderboard shows."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        unknown = (
            *("release_date", "languages", "n_parameters", "memory_usage_mb", "license"),
            *("open_weights", "public_training_code", "public_training_data", "training_datasets"),
        )
        return ModelMeta(
            loader=None,
            name=self.name,
            revision=self.revision,
            embed_dim=self.embedder.width,
            max_tokens=self.embedder.processor.prompter.max_text_tokens,
            framework=["JAX"],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=False,
            modalities=list(self.embedder.modalities),
            **dict.fromkeys(unknown),
        )

    def encode(
        self,
        inputs: Iterable[dict[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str | None = None,
        hf_subset: str | None = None,
        prompt_type: Any = None,
        **options: Any,
    ) -> np.ndarray:
        """Unit vectors of all inputs of a data loader, in order; those of queries or documents with
        the embedder's prompt of that name."""
        _set_collator(inputs)
        role = getattr(prompt_type, "value", prompt_type)
        role = role if role in self.embedder.prompts else None
        empty = "" if self.embedder.processor.prompter.takes_empty else _EMPTY
        vectors = []
        with tempfile.TemporaryDirectory() as folder:
            waiting: list[Item] = []
            for number, batch in enumerate(inputs):
                waiting += batch_items(batch, Path(folder) / str(number), empty)
                if len(waiting) >= (_MEDIA if waiting[-1].has_media else _TEXTS):
                    vectors.append(self.embedder.encode(waiting, prompt_name=role))
                    waiting = []
                    _empty(Path(folder))
            if waiting:
                vectors.append(self.embedder.encode(waiting, prompt_name=role))
        return np.concatenate(vectors)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> "torch.Tensor":
        """Cosine of every pair."""
        return _tensor(self.embedder.similarity(*map(np.asarray, (embeddings1, embeddings2))))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> "torch.Tensor":
        """Cosine of the pairs in order."""
        pairs = map(np.asarray, (embeddings1, embeddings2))
        return _tensor(self.embedder.similarity_pairwise(*pairs))


def _tensor(values: np.ndarray) -> "torch.Tensor":
    # The protocol promises any array, but some of mteb's tasks want a tensor of one value.
    import torch

    return torch.from_numpy(values)


def batch_items(batch: dict[str, Any], folder: Path, empty: str = _EMPTY) -> list[Item]:
    """The items of a batch; media become lossless files in `folder`.

    Args:
        empty: stands for a text of white space alone (empty: such a text stays as it is).
    """
    columns = {key: batch[key] for key in ("text", "image", "audio", "video") if key in batch}
    if not columns:
        raise ValueError(f"a batch has the fields {sorted(batch)}; expected text or a medium")
    items = []
    for index in range(max(map(len, columns.values()))):
        row = {key: values[index] for key, values in columns.items() if values[index] is not None}
        stem = folder / str(index)
        media = {}
        if "image" in row:
            media["images"] = (write_image(row["image"], stem),)
        if "audio" in row:
            audio = row["audio"]
            media["audios"] = (write_audio(audio["array"], audio["sampling_rate"], stem),)
        if "video" in row:
            media["videos"] = (write_frames(np.asarray(row["video"]), _FPS, stem),)
        text = row.get("text", "")
        if empty and not text.strip() and not media:
            log.warning("an empty text is encoded as %r", empty)
            text = empty
        items.append(Item(text, **media))
    return items


def _set_collator(inputs: Any) -> None:
    """Frames and audio as mteb's LCO wrapper samples them."""
    features = getattr(getattr(inputs, "dataset", None), "features", None) or {}
    if "video" in features:
        from mteb.models.modality_collators import VideoCollator

        inputs.collate_fn = VideoCollator(
            target_sampling_rate=_SAMPLING_RATE,
            fps=_FPS,
            max_frames=_MAX_FRAMES,
            num_frames=None,
            max_samples=_MAX_SAMPLES,
        )
    elif "audio" in features:
        from mteb.models.modality_collators import AudioCollator

        inputs.collate_fn = AudioCollator(
            target_sampling_rate=_SAMPLING_RATE, max_samples=_MAX_SAMPLES
        )


def _empty(folder: Path) -> None:
    for file in folder.rglob("*.*"):
        file.unlink()


# -------------------------------------------------------------------------------------- tasks


def find_tasks(names: Sequence[str]) -> "list[AbsTask]":
    """mteb's tasks by name; the name of a benchmark stands for all of its tasks.

    Raises:
        ValueError: neither a task nor a benchmark has that name.
    """
    import mteb

    found = {}
    for name in names:
        try:
            tasks = list(mteb.get_benchmark(name).tasks)
        except KeyError:
            try:
                tasks = [mteb.get_task(name)]
            except KeyError as error:
                raise ValueError(
                    f"{name} is no task or benchmark of mteb {mteb.__version__} and no offline "
                    f"task; mteb says: {str(error)[:300]}"
                ) from error
        found |= {task.metadata.name: task for task in tasks}
    return list(found.values())


def unread_tasks(modalities: Iterable[str], tasks: "Iterable[AbsTask]") -> dict[str, str]:
    """Of mteb's tasks that need what a model does not read: which media that is."""
    missing = {task.metadata.name: {*task.metadata.modalities} - {*modalities} for task in tasks}
    return {name: ", ".join(sorted(kinds)) for name, kinds in missing.items() if kinds}


def run_tasks(
    encoder: "EncoderProtocol",
    tasks: "Sequence[AbsTask]",
    folder: Path,
    *,
    batch_size: int = _MEDIA,
) -> dict[str, str]:
    """Evaluate with results in `folder`, as mteb files them; finished tasks are not run again.

    Returns what went wrong, by task.
    """
    if not tasks:
        return {}
    import mteb

    result = mteb.evaluate(
        encoder,
        tasks,
        cache=mteb.ResultCache(folder),
        overwrite_strategy="only-missing",
        encode_kwargs={"batch_size": batch_size},
        raise_error=False,
        show_progress_bar=False,
        co2_tracker=False,
    )
    return {error.task_name: error.exception for error in result.exceptions or ()}
