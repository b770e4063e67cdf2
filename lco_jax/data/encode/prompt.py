"""From an item to tokens: the prompt recipe, the checkpoint's chat template and its tokenizer."""

import hashlib
import itertools
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32

from lco_jax.data.encode.encoded import Encoded, Kind
from lco_jax.data.encode.template import (
    PROBES,
    after_answer,
    load_tokenizer,
    read_markup,
    split_template,
)
from lco_jax.data.media.sources import MediaSource, name_of
from lco_jax.data.records import Item


@dataclass(frozen=True)
class _Profile:
    max_text_tokens: int
    order: tuple[Kind, ...]
    """Of the media of an item; its text follows."""
    dominant: tuple[Kind, ...]
    """A mixture is called by the first of these that it has; empty: by none."""
    takes_empty: bool = False
    """Whether a text of no characters has a vector."""


# Source: LCO-Emb released trainers and README (lco); mteb's LCO-Embedding wrapper (mteb).
_PROFILES = {
    "lco": _Profile(650, ("image", "video", "audio"), ()),
    "mteb": _Profile(300, ("video", "audio", "image"), ("image", "video", "audio"), True),
}
_PLURALS: dict[Kind, str] = {"image": "images", "audio": "audio", "video": "videos"}
_ASK_OF_MIXTURE = "\nSummarize the above in one word:"


def check_profile(name: str) -> None:
    """Refuse a prompt recipe that is not here.

    Raises:
        ValueError: there is none of that name.
    """
    if not isinstance(name, str) or name not in _PROFILES:
        raise ValueError(f"profile={name!r} is none of {list(_PROFILES)}")


class Prompter:
    """Turns items into the tokens of one user turn, as the checkpoint's chat template writes it.

    A rendered item is `template_head + text + prompt + template_tail`. The tokens that begin
    every item, whatever its text, are `head`; `encode` leaves them out.

    Args:
        tokenizer_folder: the hub folder of the checkpoint.
        profile: prompt recipe.
        max_text_tokens: texts are cut to this many tokens (None: what the profile says).
        kinds: of media that the model reads. Those that the template does not know are left out.

    Raises:
        ValueError: there is no such profile, the folder has no fast tokenizer or chat template, or
            the template does not keep a text as it is.
    """

    head: Int32[np.ndarray, "P"]

    def __init__(
        self,
        tokenizer_folder: str | os.PathLike[str],
        profile: Literal["lco", "mteb"] = "lco",
        max_text_tokens: int | None = None,
        kinds: Sequence[Kind] = (),
    ):
        check_profile(profile)
        self._recipe = _PROFILES[profile]
        self.profile = profile
        self.prompt = _ask("text")
        """Follows an item that is a text."""
        self.max_text_tokens = (
            self._recipe.max_text_tokens if max_text_tokens is None else max_text_tokens
        )
        tokenizer = load_tokenizer(Path(tokenizer_folder))
        self.template_head, self.template_tail = split_template(tokenizer)
        self._kinds = tuple(kinds)
        self.markup = read_markup(tokenizer, self.template_head, kinds)
        """What the template writes for a medium, by kind."""
        end = after_answer(tokenizer)
        # The Rust tokenizer itself: loader threads may share it, and its batches use all cores.
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        probes = [probe + self.prompt for probe in PROBES]
        probes += [markup + _ask(kind) for kind, markup in self.markup.items()]
        full = self._tokenize(map(self._wrap, probes))
        self.head = np.array(_common_prefix(full), np.int32)
        self._rest = self._text_after_head(probes, full)
        self.end_token = self._tokenize([end])[0][0]
        """Ends a response."""

    @property
    def takes_empty(self) -> bool:
        """Whether an item without text and media has a vector."""
        return self._recipe.takes_empty

    def render(self, item: Item, text: str | None = None) -> str:
        """The whole turn that asks for the one word of an item, with one token for each medium.

        `text` takes the place of the item's own, e.g. its beginning.
        """
        return self._wrap(self._body(item, item.text if text is None else text))

    def ordered_media(self, item: Item) -> list[tuple[Kind, MediaSource]]:
        """The media of an item, in the order in which the turn names them."""
        sources = {"image": item.images, "video": item.videos, "audio": item.audios}
        return [(kind, source) for kind in self._recipe.order for source in sources[kind]]

    def encode(self, items: Sequence[Item]) -> list[Encoded]:
        """The tokens that follow `head`, and a hash of the text, of each item. Each medium is one
        token, which `Processor` turns into as many as it has features.

        Raises:
            ValueError: an item is empty, or has media of which the template knows nothing.
        """
        for item in items:
            self.check(item)
        texts = self._cut([item.text for item in items])
        bodies = [self._body(item, text) for item, text in zip(items, texts, strict=True)]
        return [
            Encoded(np.array(ids, np.int32), _hash(text))
            for ids, text in zip(self._encode_bodies(bodies), texts, strict=True)
        ]

    def encode_exchanges(
        self, items: Sequence[Item], responses: Sequence[str], max_response_tokens: int
    ) -> list[Encoded]:
        """The tokens that follow `head` of each item, which asks for nothing but what its text
        says, and of the response; the response and the token that ends it are to be learned.

        The end itself is in no row, because nothing follows it. A response that is cut has none.

        Raises:
            ValueError: an item has media of which the template knows nothing.
        """
        for item in items:
            self.check(item, may_be_empty=True)
        texts = self._cut([item.text for item in items])
        bodies = [self._media_markup(item) + text for item, text in zip(items, texts, strict=True)]
        prompts, answers = self._encode_bodies(bodies), self._tokenize(responses)
        found = []
        for prompt, answer, text, response in zip(prompts, answers, texts, responses, strict=True):
            learned = [*answer, self.end_token][:max_response_tokens]
            tokens = np.array([*prompt, *learned[:-1]], np.int32)
            targets = np.full(len(tokens), -1, np.int32)
            targets[len(prompt) - 1 :] = learned
            found.append(Encoded(tokens, _hash(f"{text}\0{response}"), targets=targets))
        return found

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts as such."""
        return self._tokenize(texts)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)

    def token(self, index: int) -> str:
        """The string of a token, special or not."""
        return self._tokenizer.id_to_token(index)

    def describe(self) -> dict:
        """What the tokens depend on, for the manifest of a run or an export."""
        return {
            "profile": self.profile,
            "prompt": self.prompt,
            "max_text_tokens": self.max_text_tokens,
            "template_head": self.template_head,
            "template_tail": self.template_tail,
            "head": self.head.tolist(),
            "markup": self.markup,
        }

    def _encode_bodies(self, bodies: list[str]) -> list[list[int]]:
        if self._rest is None:
            return [self._strip_head(ids) for ids in self._tokenize(map(self._wrap, bodies))]
        return self._tokenize(self._rest + body + self.template_tail for body in bodies)

    def _body(self, item: Item, text: str) -> str:
        return self._media_markup(item) + text + self._prompt(item)

    def _media_markup(self, item: Item) -> str:
        return "".join(self.markup[kind] for kind, _ in self.ordered_media(item))

    def _prompt(self, item: Item) -> str:
        """Names what is above by its kind, or not at all if several kinds are mixed."""
        if not item.has_media:
            return self.prompt
        kinds = {kind for kind, _ in self.ordered_media(item)}
        if self._recipe.dominant:
            return _ask(next(kind for kind in self._recipe.dominant if kind in kinds))
        return _ask("" if item.text or len(kinds) > 1 else kinds.pop())

    def _wrap(self, body: str) -> str:
        return self.template_head + body + self.template_tail

    def check(self, item: Item, *, may_be_empty: bool = False) -> None:
        """Raise ValueError if the item is empty, or has media that the template does not know."""
        if item.is_empty and not (may_be_empty or self.takes_empty):
            raise ValueError(f"item {item.id or item} is empty; give it a text or a medium")
        for kind, source in self.ordered_media(item):
            if kind not in self.markup:
                name = item.id or (repr(item.text) if item.text else "")
                place = f"item {name}: has" if name else "it has"
                raise ValueError(
                    f"{place} the {kind} {name_of(source)}, but {self._what_is_read(kind)}; use a "
                    f"model that reads {_PLURALS[kind]}"
                )

    def _what_is_read(self, refused: Kind) -> str:
        if refused in self._kinds:
            return f"the checkpoint's chat template knows no {refused}"
        return f"the model reads {' and '.join(['texts', *map(_PLURALS.get, self.markup)])} only"

    def _tokenize(self, texts: Iterable[str]) -> list[list[int]]:
        batch = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def _cut(self, texts: list[str]) -> list[str]:
        """Each text, or what its first `max_text_tokens` tokens decode to.

        Source: LCO-Emb released trainers (the text alone is tokenised, cut and decoded).
        """
        texts = list(texts)
        limit = self.max_text_tokens
        long = [index for index, text in enumerate(texts) if _most_tokens(text) > limit]
        for index, ids in zip(long, self._tokenize(texts[i] for i in long), strict=True):
            if len(ids) > limit:
                texts[index] = self._tokenizer.decode(ids[:limit], skip_special_tokens=False)
        return texts

    def _text_after_head(self, probes: list[str], full: list[list[int]]) -> str | None:
        """The template's characters between the head and the text.

        None if the tokenizer gives other tokens when a text starts there: then whole turns must
        be tokenised.
        """
        head_text = self._tokenizer.decode(self.head.tolist(), skip_special_tokens=False)
        if not self.template_head.startswith(head_text):
            return None
        rest = self.template_head[len(head_text) :]
        alone = self._tokenize(rest + probe + self.template_tail for probe in probes)
        return rest if alone == [ids[len(self.head) :] for ids in full] else None

    def _strip_head(self, ids: list[int]) -> list[int]:
        if ids[: len(self.head)] != self.head.tolist():
            raise ValueError(
                f"the tokens {ids} do not begin with the head {self.head.tolist()} of other items; "
                "this tokenizer joins the text to the template and is not supported"
            )
        return ids[len(self.head) :]


def _ask(kind: str) -> str:
    return f"\nSummarize the above {kind} in one word:" if kind else _ASK_OF_MIXTURE


def _common_prefix(sequences: list[list[int]]) -> list[int]:
    columns = zip(*sequences, strict=False)
    return [column[0] for column in itertools.takewhile(lambda ids: len(set(ids)) == 1, columns)]


def _most_tokens(text: str) -> int:
    """A bound: byte-level BPE has no more tokens than bytes, before or after normalisation."""
    if text.isascii():
        return len(text)
    return max(len(text.encode()), len(unicodedata.normalize("NFC", text).encode()))


def _hash(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
