"""Pairs of texts as an imperfect reader would pass them on, made of the texts of a dataset alone.

To a decoder, a recording is a transcript with gaps and mistakes, and an image a handful of words
in no order. What brings such texts to the whole ones prepares it for media without showing any.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lco_jax.config import Columns, Misreading
from lco_jax.data.records import Item, Triplet
from lco_jax.data.sources.columns import texts_of

VIEWS = 8
"""Pairs that each record makes; they differ in what is misread."""
_MOST_MISREAD = 0.9
"""Of the words that are heard."""
_MOST_SEEN, _MOST_STRANGE = 7, 3
"""Words that are seen of a record, and of others."""
_OTHERS = 3
"""Records that strange words are taken from."""
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


@dataclass(frozen=True)
class Misreader:
    """Makes pair `index` of some records, `VIEWS` of each: the positive of record `index % count`,
    and as its anchor what is misread of it. An index always gives the same pair; media are left
    out.
    """

    kind: Misreading
    columns: Columns
    count: int
    """Of the records."""
    more: str | None = None
    """A feature whose words are seen, too."""

    def __call__(self, records: Sequence[Mapping], index: int) -> Triplet:
        rng = random.Random(f"{self.kind} {index}")
        record = records[index % self.count]
        others = [
            records[(index + 1 + rng.randrange(self.count - 1)) % self.count]
            for _ in range(_OTHERS if self.count > 1 else 0)
        ]
        strange = [word for other in others for word in self._words(other)]
        text = _READERS[self.kind](self._words(record), strange, rng)
        positive = ", ".join(texts_of(record, self.columns.positive))
        return Triplet(Item(text or positive), Item(positive))

    def _words(self, record: Mapping) -> list[str]:
        paths = [self.columns.positive]
        if self.kind == "seen":
            paths += filter(None, (self.columns.anchor, self.more))
        texts = [text for path in paths for text in texts_of(record, path)]
        return [word.lower() for text in texts for word in _WORD.findall(text)]


def _hear(words: Sequence[str], strange: Sequence[str], rng: random.Random) -> str:
    """In order; some are missed, others are taken for strange ones or broken off."""
    share = rng.uniform(0, _MOST_MISREAD)
    heard = []
    for word in words:
        if rng.random() >= share:
            heard.append(word)
            continue
        what = rng.randrange(3)
        if what == 1 and strange:
            heard.append(rng.choice(strange))
        elif what == 2:
            heard.append(word[: rng.randint(1, len(word))])
    return " ".join(heard)


def _see(words: Sequence[str], strange: Sequence[str], rng: random.Random) -> str:
    """Some of them in no order, with strange ones between."""
    own = list(dict.fromkeys(words))
    seen = rng.sample(own, min(len(own), rng.randint(1, _MOST_SEEN)))
    seen += rng.sample(strange, min(len(strange), rng.randint(0, _MOST_STRANGE)))
    rng.shuffle(seen)
    return " ".join(seen)


_READERS: dict[Misreading, Callable[[Sequence[str], Sequence[str], random.Random], str]] = {
    "heard": _hear,
    "seen": _see,
}
