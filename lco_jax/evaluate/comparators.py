"""Models of mteb's registry, which mteb's own code loads and runs: what ours are compared with.

`mteb:NAME` names one. Its revision is the one that mteb's registry has; `mteb:NAME@REVISION`
insists on it. What is not installed, not known or has no key is refused in one line.

Source: mteb 2.26, `get_model_meta`, `ModelMeta.load_model` and EncoderProtocol.
"""

import difflib
import importlib.metadata
import itertools
import json
import logging
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from lco_jax.data.records import Item
from lco_jax.evaluate.mteb_items import GIVEN, data_loader, kinds_of, task_metadata
from lco_jax.evaluate.results import COMPARATOR
from lco_jax.evaluate.run_offline import run_offline, task_metrics
from lco_jax.evaluate.tasks import StsTask, Task, needs
from lco_jax.runtime.disks import replace_text

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

log = logging.getLogger(__name__)

BATCH_SIZE = 32
"""Inputs that a model takes at a time; mteb's own default."""

_KEYS = {
    "cohere_models": ("CO_API_KEY",),
    "cohere_v": ("COHERE_API_KEY",),
    "geevec_models": ("GEEVEC_API_KEY", "GEEKNOW_API_KEY"),
    "google_gemini": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "mcinext_models": ("MCINEXT_API_KEY",),
    "octen_models": ("OCTEN_API_KEY",),
    "openai_models": ("OPENAI_API_KEY",),
    "seed_1_6_embedding_models": ("VOLCES_AUTH_TOKEN",),
    "seed_1_6_embedding_models_1215": ("VOLCES_AUTH_TOKEN",),
    "voyage_models": ("VOYAGE_API_KEY",),
    "voyage_v": ("VOYAGE_API_KEY",),
}
"""Environment variables of which one holds the key of an API, by mteb's module that calls it."""
_LIBRARIES = ("mteb", "torch", "transformers", "sentence-transformers", "numpy", "lco_jax")


def find_comparator(model: str) -> "ModelMeta":
    """What mteb knows of a model; nothing is loaded.

    Args:
        model: `mteb:NAME` or `mteb:NAME@REVISION`.

    Raises:
        ValueError: mteb is not installed, its registry has no such model or none of that revision,
            it has no code that runs it, or the key of its API is missing.
    """
    name, _, revision = model.removeprefix(COMPARATOR).partition("@")
    try:
        import mteb
    except ImportError as error:
        raise ValueError(
            f"{model} needs mteb ({error}); install the extra: pip install -e '.[eval]'"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of names that have changed
        try:
            meta = mteb.get_model_meta(name)
        except KeyError:
            raise ValueError(_unknown(name)) from None
    if meta.name != name:
        log.info("%s is called %s in mteb %s", name, meta.name, mteb.__version__)
    if meta.revision is None:
        raise ValueError(
            f"mteb {mteb.__version__} names no revision of {name}, so that its results could not "
            "be told from those of another; take a model that has one"
        )
    if revision not in ("", meta.revision):
        raise ValueError(
            f"mteb {mteb.__version__} runs {meta.name} at revision {meta.revision}, and not at "
            f"{revision}; leave @{revision} out, or install another version of mteb"
        )
    if meta.loader is None:
        raise ValueError(
            f"mteb {mteb.__version__} lists {meta.name} and has no code that runs it; take another "
            "model"
        )
    _check_key(meta)
    return meta


def _unknown(name: str) -> str:
    import mteb

    known = sorted(filter(None, (meta.name for meta in mteb.get_model_metas())))
    near = [other for other in known if name and name.lower() in other.lower()]
    by_key = {other.lower(): other for other in known}
    by_key |= {other.lower().rpartition("/")[2]: other for other in known}
    for written in (name.lower(), name.lower().rpartition("/")[2]):
        near += [by_key[key] for key in difflib.get_close_matches(written, by_key, n=3)]
    near = list(dict.fromkeys(near))[:3]
    hint = f"did you mean {' or '.join(COMPARATOR + other for other in near)}?" if near else ""
    return (
        f"mteb {mteb.__version__} has no model {name!r} among its {len(known)}; "
        f"{hint or 'its names are written ORG/NAME, as mteb.get_model_metas() lists them'}"
    )


def _check_key(meta: "ModelMeta") -> None:
    loader = meta.loader
    while hasattr(loader, "func"):  # functools.partial
        loader = loader.func
    names = _KEYS.get(loader.__module__.rpartition(".")[2], ())
    if names and not any(os.environ.get(name) for name in names):
        raise ValueError(
            f"{COMPARATOR}{meta.name} is called through an API, whose key is missing; set the "
            f"environment variable {' or '.join(names)}"
        )


class Comparator:
    """A loaded model of mteb's registry, for tasks of mteb and offline ones.

    Offline tasks are scored from its vectors by our own metrics, with cosines, as ours are. They
    go through mteb's interface as tasks of mteb do, with the roles of queries and documents; a
    model that takes instructions gets the one that mteb has for tasks without any of their own.
    """

    def __init__(self, meta: "ModelMeta", *, batch_size: int = BATCH_SIZE):
        """
        Args:
            meta: as `find_comparator` finds it.
            batch_size: inputs that the model takes at a time.

        Raises:
            ValueError: a library that it needs is not installed.
            RuntimeError: it cannot be loaded for another reason.
        """
        self.batch_size = batch_size
        what = f"{COMPARATOR}{meta.name} cannot be loaded"
        try:
            self.encoder = meta.load_model()
        except ImportError as error:
            raise ValueError(f"{what}: {_install(error)}") from error
        except Exception as error:  # of any library
            raise RuntimeError(f"{what}: {_said(error)}") from error
        self.meta: ModelMeta = self.encoder.mteb_model_meta

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it reads of offline tasks."""
        return tuple(sorted(GIVEN & set(self.meta.modalities)))

    @property
    def revision(self) -> str:
        """What its vectors depend on: the model, and the code that runs it."""
        return repr((self.meta.name, self.meta.revision, sorted(_versions().items())))

    @property
    def about(self) -> str:
        """Its name, revision, modalities, and whether instructions are put before its inputs."""
        uses = {True: "with instructions", False: "without instructions"}.get(
            self.meta.use_instructions, "mteb does not say whether with instructions"
        )
        kinds = ", ".join(sorted(self.meta.modalities))
        return f"{self.meta.name} of mteb, revision {self.meta.revision}, reads {kinds}, {uses}"

    def run_offline(self, tasks: Sequence[Task], folder: Path) -> dict[str, float]:
        """Main scores by task, as `run_offline` has them, with mteb's description of the model in
        `model_meta.json` beside them.

        Raises:
            RuntimeError: the model fails.
        """
        if "video" in self.meta.modalities and any("video" in needs(task) for task in tasks):
            log.info("models of mteb are handed the texts, images and audio of offline tasks only")
        scores = run_offline(self, tasks, folder, score=self._score, versions=_versions())
        if scores:
            described = json.dumps(self.meta.to_dict(), default=str, indent=1)
            replace_text(folder / "model_meta.json", described + "\n")
        return scores

    def _score(self, _: "Comparator", task: Task) -> dict[str, float]:
        from mteb.types import PromptType

        if isinstance(task, StsTask):
            sides = ((None, task.items),)
        else:
            count = len(task.queries)
            sides = (
                (PromptType.query, task.items[:count]),
                (PromptType.document, task.items[count:]),
            )
        vectors = [self._encode(task, items, role) for role, items in sides]
        return task_metrics(task, np.concatenate(vectors))

    def _encode(self, task: Task, items: Sequence[Item], role: Any) -> Float[np.ndarray, "N E"]:
        """Unit vectors in order, of each distinct item computed once."""
        distinct = sorted(dict.fromkeys(items), key=kinds_of)
        place = {item: index for index, item in enumerate(distinct)}
        try:
            found = [
                _as_array(
                    self.encoder.encode(
                        data_loader(tuple(group), self.batch_size),
                        task_metadata=task_metadata(task),
                        hf_split="test",
                        hf_subset="default",
                        prompt_type=role,
                        batch_size=self.batch_size,
                    )
                )
                for _, group in itertools.groupby(distinct, kinds_of)
            ]
            vectors = np.concatenate(found)
        except Exception as error:  # of any library
            raise RuntimeError(
                f"{COMPARATOR}{self.meta.name} failed at {task.name}: {_said(error)}"
            ) from error
        if vectors.ndim != 2 or len(vectors) != len(distinct):
            raise RuntimeError(
                f"{COMPARATOR}{self.meta.name} gave an array of shape {vectors.shape} for "
                f"{len(distinct)} items of {task.name}, and not one vector for each; leave offline "
                "tasks out"
            )
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors[[place[item] for item in items]]


def check_offline(meta: "ModelMeta") -> None:
    """Refuse a model that has no vectors which offline tasks could compare.

    Raises:
        ValueError: it is, for instance, a cross-encoder.
    """
    if "dense" not in meta.model_type:
        raise ValueError(
            f"{COMPARATOR}{meta.name} is of type {', '.join(meta.model_type)}, and offline tasks "
            "compare one vector of each item; name tasks of mteb, such as --tasks STS12"
        )


def _as_array(vectors: Any) -> np.ndarray:
    import torch

    return torch.as_tensor(vectors).detach().float().cpu().numpy()


def _install(error: ImportError) -> str:
    """What is missing and how it is installed, in a line."""
    text = " ".join(str(error).split("\nAlternatively")[0].split())
    if error.name and "pip install" not in text:
        package = error.name.partition(".")[0]
        return f"it needs {package} ({text}); install it: pip install {package}"
    text = re.sub(r'; extra == "[^"]*"', "", text).removesuffix(".")
    text = re.sub(r"`(pip install) ([^`' ]+)`", r"\1 '\2'", text)  # shells read brackets
    if "(installed: " in text:
        text += ", in another environment if this one has to keep its versions (docs/evaluate.md)"
    return text


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())[:500]
    hint = "; give a smaller --batch-size" if "out of memory" in text else ""
    return f"{type(error).__name__}: {text}{hint}"


def _versions() -> dict[str, str]:
    """Of what the scores depend on."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}
