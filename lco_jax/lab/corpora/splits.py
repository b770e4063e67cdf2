"""How the lab's data are held apart beyond `train` and `test`: development splits and folds.

Of each dataset's `train`, `dev` is what choices are measured on (a learning rate, the share of
images, how audio is read), and `fit` is what is trained on meanwhile. When all is chosen, the final
recipe trains on the whole of `train`: no choice was made on `test`, so it measures that model as
honestly as one of `fit`, and there are few data to spare.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter

from lco_jax.lab.corpora.emoji_source import motif
from lco_jax.lab.corpora.spoken_source import MIN_TEST_WORDS, Spoken, group_variants

NUM_DEV_IMAGES = 200
NUM_DEV_TEXTS = 200
NUM_DEV_SPOKEN = 60
NUM_FOLDS = 5
_SEED = 0

Splits = dict[str, list[dict]]
"""Records by split, each in the order of their file."""


def split_images(train: Sequence[dict]) -> Splits:
    """`fit` and `dev` of emoji, with all variants of a motif on one side."""
    motifs = defaultdict(list)
    for record in train:
        symbol = "".join(chr(int(code, 16)) for code in record["id"].split("-"))
        motifs[motif(symbol)].append(record["id"])
    held_out: set[str] = set()
    for key in _shuffled(sorted(motifs)):
        if len(held_out) + len(motifs[key]) <= NUM_DEV_IMAGES:
            held_out.update(motifs[key])
    return {
        "fit": [record for record in train if record["id"] not in held_out],
        "dev": [record for record in train if record["id"] in held_out],
    }


def split_texts(train: Sequence[dict]) -> Splits:
    """`fit` and `dev` of WordNet triplets. `dev` holds pairs of an example and a definition; lines
    that name one of their words or hold one of their definitions are not in `fit`."""
    # Definitions of synonyms have no word before them.
    examples = [record for record in train if all(": " in record[key]["text"] for key in _DEFINED)]
    chosen = {record["id"]: record for record in _shuffled(examples)[:NUM_DEV_TEXTS]}
    held_out = set().union(*map(_subjects, chosen.values()))
    pairs = [record for record in train if record["id"] in chosen]
    return {
        "fit": [record for record in train if held_out.isdisjoint(_subjects(record))],
        "dev": [{key: record[key] for key in ("id", "anchor", "positive")} for record in pairs],
    }


_DEFINED = ("positive", "negative")


def _subjects(record: dict) -> set[str]:
    """The words that a triplet of WordNet is about, and its definitions; of the negative, too."""
    words = set(record["anchor"]["text"].lower().split(", "))  # of synonyms
    for text in (record[key]["text"].lower() for key in _DEFINED):
        head, colon, definition = text.partition(": ")
        words |= {head, definition, text} if colon else {text}
    return words


def split_spoken(train: Sequence[dict]) -> Splits:
    """`fit` and `dev` of spoken prompts, with all variants of a transcript on one side. `dev` says
    two or three words, too few to be held out in any fold: no choice is made on what folds
    measure."""
    groups = [group for group in _variants(train) if 1 < _longest(group) < MIN_TEST_WORDS]
    fit, dev = _held_apart(train, _shuffled(groups)[:NUM_DEV_SPOKEN])
    return {"fit": fit, "dev": dev}


def fold_of_spoken(records: Sequence[dict], fold: int) -> Splits:
    """`train` and `test` of a fold, with all variants of a transcript on one side. Every transcript
    of four words or more is in the `test` of exactly one fold.

    Args:
        records: all there are.
        fold: from 1 to `NUM_FOLDS`.
    """
    groups = [group for group in _variants(records) if _longest(group) >= MIN_TEST_WORDS]
    folds: list[list[list[Spoken]]] = [[] for _ in range(NUM_FOLDS)]
    sizes = [0] * NUM_FOLDS
    for group in sorted(_shuffled(groups), key=len, reverse=True):
        smallest = sizes.index(min(sizes))
        folds[smallest].append(group)
        sizes[smallest] += len({one.words for one in group})
    train, test = _held_apart(records, folds[fold - 1])
    return {"train": train, "test": test}


def _variants(records: Iterable[dict]) -> list[list[Spoken]]:
    """Spoken prompts in groups of those that say nearly the same, by their names and without their
    recordings."""
    spoken = [Spoken(one["id"], one["transcript"], b"") for one in records]
    return sorted(group_variants(spoken), key=lambda group: min(one.id for one in group))


def _longest(group: Iterable[Spoken]) -> int:
    return max(len(one.words) for one in group)


def _held_apart(
    records: Sequence[dict], groups: Sequence[Sequence[Spoken]]
) -> tuple[list[dict], list[dict]]:
    """What is in none of the groups, and of each transcript in them the first recording, so that
    every query has one right answer."""
    held_out = {one.id for group in groups for one in group}
    by_id = sorted((one for group in groups for one in group), key=attrgetter("id"), reverse=True)
    kept = set({one.words: one.id for one in by_id}.values())
    return (
        [record for record in records if record["id"] not in held_out],
        [record for record in records if record["id"] in kept],
    )


def _shuffled(values: Iterable) -> list:
    values = list(values)
    random.Random(_SEED).shuffle(values)
    return values
