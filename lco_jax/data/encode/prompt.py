"""From an item to tokens: the prompt recipe, the checkpoint's chat template and its tokenizer."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Int32

from lco_jax.config import ControlTokensRead, ProfileName
from lco_jax.data.encode.encoded import Encoded, Kind, as_arrays, hashes_of
from lco_jax.data.encode.profiles import MIXTURE, PROFILES, Asked, check_profile, check_tokens
from lco_jax.data.encode.template import (
    PROBES,
    after_answer,
    around_text,
    before_answer,
    begin_of_turns,
    load_tokenizer,
    open_template,
    read_markup,
    split_template,
)
from lco_jax.data.encode.text_tokenizer import Before, TextTokenizer, Turn
from lco_jax.data.errors import RecordError
from lco_jax.data.media.sources import MediaSource, name_of
from lco_jax.data.records import Item

_FIELDS: dict[Kind, str] = {"image": "images", "audio": "audios", "video": "videos"}
_PLURALS: dict[Kind, str] = {"image": "images", "audio": "audio", "video": "videos"}


class Prompter:
    """Turns items into the tokens of one user turn, as the checkpoint's chat template writes it.

    A rendered item is `template_head + text + prompt + template_tail`. The tokens that begin
    every item, whatever its text, are `head`; `encode` leaves them out.

    Args:
        tokenizer_folder: the hub folder of the checkpoint.
        profile: prompt recipe.
        max_text_tokens: texts are cut to this many tokens (None: what the profile says).
        kinds: of media that the model reads. Those that the template does not know are left out.
        control_tokens: how control tokens in texts are read (see `DataConfig`).

    Raises:
        ValueError: there is no such profile, the folder has no fast tokenizer or chat template, or
            the template does not keep a text as it is.
    """

    head: Int32[np.ndarray, "P"]

    def __init__(
        self,
        tokenizer_folder: str | os.PathLike[str],
        profile: ProfileName = "lco",
        max_text_tokens: int | None = None,
        kinds: Sequence[Kind] = (),
        control_tokens: ControlTokensRead = "characters",
    ):
        check_profile(profile)
        if control_tokens not in (known := get_args(ControlTokensRead)):
            raise ValueError(f"control_tokens={control_tokens!r} is none of {known}")
        self._recipe = PROFILES[profile]
        self.profile = profile
        self.prompt = self._recipe.asked["text"].after
        """Follows an item that is a text."""
        self.nothing = self._recipe.nothing
        """The text of an item that has neither text nor media."""
        self.max_text_tokens = (
            self._recipe.max_text_tokens if max_text_tokens is None else max_text_tokens
        )
        folder = Path(tokenizer_folder)
        tokenizer = load_tokenizer(folder, with_template=self._recipe.has_turns)
        self._kinds = tuple(kinds)
        self.markup: dict[Kind, str] = {}
        """What the template writes for a medium, by kind."""
        self._lead = ""  # what it writes before a text, behind the media
        if self._recipe.has_turns:
            template = open_template(tokenizer, folder, kinds)
            self.template_head, self.template_tail = split_template(template)
            self.markup, self._lead = read_markup(template, self.template_head, kinds)
            self.template_head = self.template_head.removesuffix(self._lead)
            end, lead = after_answer(template, tokenizer), before_answer(template)
            begin = begin_of_turns(tokenizer, folder)
            if not self.template_head.startswith(begin):
                self.template_head = begin + self.template_head
        else:
            own, lead = self._recipe.turn, ""
            before, after = around_text(tokenizer, folder, needs_end=own is None)
            end = after or tokenizer.eos_token
            if own:
                end = end or own[1]
                check_tokens(profile, tokenizer.get_vocab(), folder)
                before, after = before + own[0], own[1] + after
            self.template_head, self.template_tail = before, after
            markup = self._recipe.markup
            self.markup = {kind: markup[kind] for kind in kinds if kind in markup}
        self.control_tokens = control_tokens
        self._tokenizer = TextTokenizer(tokenizer.backend_tokenizer, control_tokens)
        probes = [self._lead + probe + self.prompt for probe in PROBES]
        every = {kind: Item(**{_FIELDS[kind]: ("",)}) for kind in self.markup}
        probes += ["".join(self._body(item, "")) for item in every.values()]
        full = self._tokenizer.of_template(map(self._wrap, probes))
        head = _common_prefix(full)
        if self._tokenizer.joins_lines:  # what a probe does not show, another text may
            head = head[: self._tokenizer.last_control_token(head)]
        self.head = np.array(head, np.int32)
        self._before_answer = Before(self.template_tail, lead)
        self._rest = self._text_after_head(probes, full)
        self.end_token = self._tokenizer.of_template([end])[0][0]
        """Ends a response."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """What stands before texts unless a caller says otherwise, by name."""
        return self._recipe.prompts

    @property
    def takes_empty(self) -> bool:
        """Whether an item without text and media has a vector."""
        return self._recipe.takes_empty

    def render(self, item: Item, text: str | None = None) -> str:
        """The whole turn that asks for the one word of an item, with one token for each medium.

        `text` takes the place of the item's own, e.g. its beginning.
        """
        return self._wrap("".join(self._body(item, item.text if text is None else text)))

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
        return self.encode_checked(items)

    def encode_checked(self, items: Sequence[Item]) -> list[Encoded]:
        """As `encode`, of items that `check` has seen."""
        texts = self._tokenizer.cut([item.text for item in items], self.max_text_tokens)
        before, _, after = self._within(self._body(Item(), ""))
        turns = [Turn(before, text, after) for text in texts]
        for index, item in enumerate(items):
            if item.has_media or not texts[index]:
                turns[index] = self._within(self._body(item, texts[index]))
        tokens = as_arrays(self._encode_turns(turns))
        return list(map(Encoded, tokens, hashes_of(texts)))

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
        return self.encode_checked_exchanges(items, responses, max_response_tokens)

    def encode_checked_exchanges(
        self, items: Sequence[Item], responses: Sequence[str], max_response_tokens: int
    ) -> list[Encoded]:
        """As `encode_exchanges`, of items that `check` has seen."""
        texts = self._tokenizer.cut([item.text for item in items], self.max_text_tokens)
        turns = [
            self._within(Turn(self._media_markup(item) + self._lead, text, ""))
            for item, text in zip(items, texts, strict=True)
        ]
        prompts = self._encode_turns(turns)
        answers = self._tokenizer.beginnings(responses, max_response_tokens, self._before_answer)
        hashes = hashes_of(f"{text}\0{said}" for text, said in zip(texts, responses, strict=True))
        found = []
        for prompt, answer, digest in zip(prompts, answers, hashes, strict=True):
            learned = [*answer, self.end_token][:max_response_tokens]
            tokens = np.array([*prompt, *learned[:-1]], np.int32)
            targets = np.full(len(tokens), -1, np.int32)
            targets[len(prompt) - 1 :] = learned
            found.append(Encoded(tokens, digest, targets=targets))
        return found

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts as such."""
        return self._tokenizer.of_texts(texts)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        return self._tokenizer.decode(tokens)

    def token(self, index: int) -> str:
        """The string of a token, special or not."""
        return self._tokenizer.token(index)

    def describe(self) -> dict:
        """What the tokens depend on, for the manifest of a run or an export."""
        return {
            "profile": self.profile,
            "prompt": self.prompt,
            "max_text_tokens": self.max_text_tokens,
            "control_tokens": self.control_tokens,
            "template_head": self.template_head,
            "template_tail": self.template_tail,
            "head": self.head.tolist(),
            "markup": self.markup,
        }

    def _encode_turns(self, turns: Sequence[Turn]) -> list[list[int]]:
        found = self._tokenizer.of_turns(turns)
        return [self._strip_head(ids) for ids in found] if self._rest is None else found

    def _within(self, body: Turn) -> Turn:
        """What is tokenised of a turn: all of it, or what follows the head."""
        head = self.template_head if self._rest is None else self._rest
        return Turn(head + body.before, body.text, body.after + self.template_tail)

    def _body(self, item: Item, text: str) -> Turn:
        asked, text = self.asked(item), text if text or item.has_media else self.nothing
        return Turn(asked.before + self._media_markup(item) + asked.between, text, asked.after)

    def _media_markup(self, item: Item) -> str:
        return "".join(self.markup[kind] for kind, _ in self.ordered_media(item))

    def asked(self, item: Item) -> Asked:
        """What is written around the parts of an item: it names what is above by its kind, or not
        at all if several kinds are mixed."""
        kinds = {kind for kind, _ in self.ordered_media(item)}
        if not kinds:
            name = "text"
        elif self._recipe.dominant:
            name = next(kind for kind in self._recipe.dominant if kind in kinds)
        else:
            name = MIXTURE if item.text or len(kinds) > 1 else kinds.pop()
        asked = self._recipe.asked[name]
        return asked._replace(between=asked.between + self._lead)

    def _wrap(self, body: str) -> str:
        return self.template_head + body + self.template_tail

    def check(self, item: Item, *, may_be_empty: bool = False) -> None:
        """Raise RecordError if the item is empty, or has media that the template does not know."""
        if item.text and not (item.text.isspace() or item.has_media):
            return
        if item.is_empty and not (may_be_empty or self.takes_empty):
            raise RecordError(f"item {item.id or item} is empty; give it a text or a medium")
        given = item.media.items() if item.has_media else ()
        for kind, source in ((kind, source) for kind, own in given for source in own):
            if kind not in self.markup:
                name = item.id or (repr(item.text) if item.text else "")
                place = f"item {name}: has" if name else "it has"
                raise RecordError(
                    f"{place} the {kind} {name_of(source)}, but {self._what_is_read(kind)}; use a "
                    f"model that reads {_PLURALS[kind]}"
                )

    def _what_is_read(self, refused: Kind) -> str:
        if not (self._recipe.has_turns or self._recipe.markup):
            return f"the profile {self.profile!r} is for texts alone"
        if refused in self._kinds:
            return f"the checkpoint's chat template knows no {refused}"
        return f"the model reads {' and '.join(['texts', *map(_PLURALS.get, self.markup)])} only"

    def _text_after_head(self, probes: list[str], full: list[list[int]]) -> str | None:
        """The template's characters between the head and the text.

        None if the tokenizer gives other tokens when a text starts there: then whole turns must
        be tokenised.
        """
        head_text = self._tokenizer.decode(self.head.tolist(), with_special=True)
        if not self.template_head.startswith(head_text):
            return None
        rest = self.template_head[len(head_text) :]
        alone = self._tokenizer.of_template(rest + probe + self.template_tail for probe in probes)
        return rest if alone == [ids[len(self.head) :] for ids in full] else None

    def _strip_head(self, ids: list[int]) -> list[int]:
        if ids[: len(self.head)] != self.head.tolist():
            raise ValueError(
                f"the tokens {ids} do not begin with the head {self.head.tolist()} of other items; "
                "this tokenizer joins the text to the template and is not supported"
            )
        return ids[len(self.head) :]


def _common_prefix(sequences: list[list[int]]) -> list[int]:
    columns = zip(*sequences, strict=False)
    return [column[0] for column in itertools.takewhile(lambda ids: len(set(ids)) == 1, columns)]
