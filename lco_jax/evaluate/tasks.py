"""What an evaluation task is: items, which of them belong together, and where they come from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lco_jax.data.records import Item
from lco_jax.metrics import retrieval

ENGLISH = "eng-Latn"
LANGUAGES = {
    "en": ENGLISH,
    "id": "ind-Latn",
    "th": "tha-Thai",
    "vi": "vie-Latn",
    "ms": "zsm-Latn",
}


@dataclass(frozen=True)
class RetrievalTask:
    """Every query has one relevant document."""

    name: str
    description: str
    languages: tuple[str, ...]
    queries: tuple[Item, ...]
    documents: tuple[Item, ...]
    licence: str
    main_score: str = "ndcg@10"
    relevant: tuple[int, ...] | None = None
    """The document of each query, by index (None: document i is that of query i)."""

    @property
    def items(self) -> tuple[Item, ...]:
        return self.queries + self.documents

    @property
    def answers(self) -> Int[np.ndarray, "Q"]:
        """`relevant` in full."""
        return np.arange(len(self.queries)) if self.relevant is None else np.array(self.relevant)


@dataclass(frozen=True)
class StsTask:
    """Pairs with a similarity that people's annotations imply."""

    name: str
    description: str
    languages: tuple[str, ...]
    first: tuple[Item, ...]
    second: tuple[Item, ...]
    gold: Float[np.ndarray, "N"]
    licence: str
    main_score: str = "cosine_spearman"

    @property
    def items(self) -> tuple[Item, ...]:
        return self.first + self.second


@dataclass(frozen=True)
class ChoiceTask:
    """Query i is nearer to the right item i than to the wrong one; chance is a half."""

    name: str
    description: str
    languages: tuple[str, ...]
    queries: tuple[Item, ...]
    right: tuple[Item, ...]
    wrong: tuple[Item, ...]
    licence: str
    main_score: str = "accuracy"

    @property
    def items(self) -> tuple[Item, ...]:
        return self.queries + self.right + self.wrong


Task = RetrievalTask | StsTask | ChoiceTask


def chance(task: Task) -> float:
    """The main score to expect of a model that learned nothing."""
    match task:
        case RetrievalTask():
            return retrieval.chance(len(task.documents))[task.main_score]
        case StsTask():
            return 0.0
        case ChoiceTask():
            return 0.5


def needs(task: Task) -> set[str]:
    """The modalities of a task's items."""
    kinds = {
        "text": any(item.text.strip() for item in task.items),
        "image": any(item.images for item in task.items),
        "audio": any(item.audios for item in task.items),
        "video": any(item.videos for item in task.items),
    }
    return {kind for kind, there in kinds.items() if there}
