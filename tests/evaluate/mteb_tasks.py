"""Our tasks as tasks of mteb, whose evaluators are the reference of ours."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset, DatasetDict, Image
from mteb.abstasks import AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

from lco_jax.data.records import Item
from lco_jax.evaluate.mteb_items import task_metadata
from lco_jax.evaluate.tasks import RetrievalTask, StsTask, Task, needs


def as_mteb_task(task: Task) -> AbsTask:
    """An offline task (also SeaDoc) for mteb, of texts and pictures; each item is one of both."""
    kinds = sorted(needs(task))
    if not set(kinds) <= {"text", "image"} or any(item.text and item.images for item in task.items):
        raise ValueError(
            f"{task.name} has items of {' and '.join(kinds)}; only texts and single pictures are "
            "mapped"
        )

    metadata = task_metadata(task)

    def table(items: Sequence[Item]) -> Dataset:
        ids = [str(index) for index in range(len(items))]
        if not items[0].images:
            return Dataset.from_dict({"id": ids, "text": [item.text for item in items]})
        # Files, which are opened when they are read.
        pictures = [item.images[0] for item in items]
        return Dataset.from_dict({"id": ids, "image": pictures}).cast_column("image", Image())

    match task:
        case RetrievalTask():

            class Retrieval(AbsTaskRetrieval):
                def load_data(self, *_: Any, **__: Any) -> None:
                    split = RetrievalSplitData(
                        queries=table(task.queries),
                        corpus=table(task.documents),
                        relevant_docs={str(i): {str(j): 1} for i, j in enumerate(task.answers)},
                        top_ranked=None,
                    )
                    self.dataset = {"default": {"test": split}}
                    self.data_loaded = True

            Retrieval.metadata = metadata.model_copy(update={"main_score": "ndcg_at_10"})
            return Retrieval()
        case StsTask():

            class Sts(AbsTaskSTS):
                min_score, max_score = 0, 1

                def load_data(self, *_: Any, **__: Any) -> None:
                    columns = {
                        "sentence1": [item.text for item in task.first],
                        "sentence2": [item.text for item in task.second],
                        "score": task.gold.tolist(),
                    }
                    self.dataset = DatasetDict(test=Dataset.from_dict(columns))
                    self.data_loaded = True

            Sts.metadata = metadata
            return Sts()
