"""The tokenizer of a checkpoint as items need it: their texts are data, of any length."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from lco_jax.config import ControlTokensRead
from lco_jax.data.encode.control import ControlTokens
from lco_jax.data.encode.long_texts import LONG_CHARS, first_part
from lco_jax.data.encode.tails import Tails


class Turn(NamedTuple):
    """A text and what the chat template writes around it."""

    before: str
    text: str
    after: str


class Before(NamedTuple):
    """What the chat template writes before a text: as far as it asks for it, and the rest."""

    markup: str
    lead: str


_NOTHING = Before("", "")
_MARGIN = 4
"""By how many tokens a text may be longer alone than after others."""


class TextTokenizer:
    """Tokens of texts, and of texts within what a chat template writes.

    Args:
        tokenizer: the Rust tokenizer itself: loader threads may share it, and its batches use all
            cores.
        control_tokens: how control tokens in texts are read; those of the template are read anyway.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        control_tokens: ControlTokensRead = "characters",
    ):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._control = ControlTokens(tokenizer) if control_tokens == "characters" else None
        self._tails = Tails(tokenizer, joins_lines=self.joins_lines)

    def of_template(self, texts: Iterable[str]) -> list[list[int]]:
        """The tokens of what a chat template writes."""
        return _batch(self._tokenizer, texts)

    def of_texts(self, texts: Iterable[str]) -> list[list[int]]:
        """The tokens of texts as such."""
        return self.of_turns([Turn("", text, "") for text in texts])

    def of_turns(self, turns: Sequence[Turn]) -> list[list[int]]:
        """The tokens of whole turns, or of what follows their common head."""
        tails = [self._tails.divide(turn.text, turn.after) for turn in turns]
        found = _batch(
            self._tokenizer,
            [
                turn.before + turn.text + (turn.after if tail is None else tail.joined)
                for turn, tail in zip(turns, tails, strict=True)
            ],
        )
        for ids, tail in zip(found, tails, strict=True):
            if tail is not None:
                ids += tail.tokens
        control = self._control
        if control is None or not control.may_be_in("".join(turn.text for turn in turns)):
            return found
        for index, turn in enumerate(turns):
            if control.are_in(turn.text):
                whole = control.rename(turn.before) + turn.text + control.rename(turn.after)
                found[index] = _ids(control.renamed, whole)
        return found

    def beginnings(
        self, texts: Sequence[str], num_tokens: int, before: Before = _NOTHING
    ) -> list[list[int]]:
        """The first tokens of each text, as they are after what stands before it; or of a text that
        is joined to that, as they are alone.
        """
        short = [self._begin(text, num_tokens + _MARGIN) for text in texts]
        turns = [Turn(before.markup + before.lead, text, "") for text in short]
        head = _ids(self._tokenizer, before.markup)
        found = [
            ids[len(head) :] if ids[: len(head)] == head else None for ids in self.of_turns(turns)
        ]
        alone = self.of_texts(text for text, ids in zip(short, found, strict=True) if ids is None)
        return [(alone.pop(0) if ids is None else ids)[:num_tokens] for ids in found]

    @property
    def joins_lines(self) -> bool:
        """Whether tokens may reach from one line into the next: SentencePiece divides texts
        nowhere, or at blanks alone.
        """
        steps = self._tokenizer.pre_tokenizer
        return steps is None or len(steps.pre_tokenize_str("a\nb")) == 1

    def last_control_token(self, ids: Sequence[int]) -> int:
        """How many tokens there are up to the last one that is looked for before all else."""
        added = self._tokenizer.get_added_tokens_decoder()
        return max((place + 1 for place, token in enumerate(ids) if token in added), default=0)

    def cut(self, texts: Sequence[str], num_tokens: int) -> list[str]:
        """Each text, or what its first tokens decode to.

        Source: LCO-Emb released trainers (the text alone is tokenised, cut and decoded).
        """
        texts = [self._begin(text, num_tokens + 1) for text in texts]
        long = [index for index, text in enumerate(texts) if _most_tokens(text) > num_tokens]
        for index, ids in zip(long, self.of_texts(texts[i] for i in long), strict=True):
            if len(ids) > num_tokens:
                texts[index] = self._tokenizer.decode(ids[:num_tokens], skip_special_tokens=False)
        return texts

    def decode(self, tokens: Sequence[int], *, with_special: bool = False) -> str:
        """The text of tokens."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=not with_special)

    def token(self, index: int) -> str:
        """The string of a token, special or not."""
        return self._tokenizer.id_to_token(index)

    def _begin(self, text: str, num_tokens: int) -> str:
        """The text; or if it is very long, as much as decides its first tokens."""
        if len(text) <= LONG_CHARS:
            return text
        return first_part(text, num_tokens, self._encode, self._tokenizer)

    def _encode(self, text: str) -> Encoding:
        tokenizer = self._tokenizer
        if self._control is not None and self._control.are_in(text):
            tokenizer = self._control.renamed
        return tokenizer.encode(text, add_special_tokens=False)


def _batch(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    batch = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in batch]


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return _batch(tokenizer, [text])[0]


def _most_tokens(text: str) -> int:
    """A bound: BPE of bytes has no more tokens than bytes, before or after normalisation, and
    SentencePiece puts a blank before a text."""
    if text.isascii():
        return len(text) + 1
    return max(len(text.encode()), len(unicodedata.normalize("NFC", text).encode())) + 1
