"""As much of a long text as decides its first tokens, so that the rest is never tokenised."""

import unicodedata
from collections.abc import Callable

from tokenizers import Encoding, Tokenizer, models

LONG_CHARS = 1 << 16
"""Shorter texts are tokenised whole, which takes some hundredths of a second."""
_CHARS_PER_TOKEN = 16
"""More than nearly all texts have."""
_LEAST_CHARS = 2048
_MOST_CHARS = 1 << 21
"""Tokenised of a text, at most: some seconds."""
_GROWTH = 4
_SEARCHED_CHARS = 1024
"""Behind the place where a text is to be cut."""
_LONGEST_NAME = 64
_BRACKETS = ("<>", "[]")
"""Around control tokens."""
_JAMO = (range(0x1100, 0x1200), range(0xD7B0, 0xD800))
"""Letters of Hangul, which become one character with the letter before."""

Encode = Callable[[str], Encoding]


def first_part(text: str, num_tokens: int, encode: Encode, tokenizer: Tokenizer) -> str:
    """A beginning of the text whose first `num_tokens` tokens are those of the whole text.

    Pieces into which the tokenizer splits a text before it looks for tokens are the same in the
    whole text, but for the last of a beginning. If those before it have too few tokens, as in a
    text without any blank, the last piece is looked into. Its first tokens are certain if they are
    the same wherever the token ends that reaches over the cut: what byte-pair encoding finds before
    the end of a token is what it finds in a text that ends there.

    Args:
        encode: finds the tokens of a text.
        tokenizer: which `encode` asks.

    Raises:
        ValueError: there is no such beginning of less than two million characters.
    """
    chars = max(_CHARS_PER_TOKEN * num_tokens, _LEAST_CHARS)
    while chars < min(len(text), _MOST_CHARS):
        stop = _place_to_cut(text, chars)
        if stop is not None and _decides(text[:stop], num_tokens, encode, tokenizer):
            return text[:stop]
        chars *= _GROWTH
    if len(text) > _MOST_CHARS:
        raise ValueError(
            f"its text of {len(text)} characters cannot be cut to {num_tokens} tokens: what the "
            f"first {_MOST_CHARS} mean depends on what follows; cut it, or drop the record"
        )
    return text


def _place_to_cut(text: str, start: int) -> int | None:
    """A place behind a character that is no white space, outside of what may be a control token,
    and before a character that normalisation joins to none; None if there is none soon after
    `start`.
    """
    for index in range(start, min(start + _SEARCHED_CHARS, len(text))):
        if text[index - 1].isspace() or not _stands_alone(text[index]):
            continue
        before = text[index - _LONGEST_NAME : index]
        if all(before.rfind(first) <= before.rfind(last) for first, last in _BRACKETS):
            return index
    return None


def _stands_alone(char: str) -> bool:
    if char.isascii():
        return True
    joins = unicodedata.category(char)[0] not in "LNPSZ" or unicodedata.combining(char)
    return not joins and not any(ord(char) in letters for letters in _JAMO)


def _decides(part: str, num_tokens: int, encode: Encode, tokenizer: Tokenizer) -> bool:
    """Whether the first tokens of a text are certain, of which a part is known."""
    encoding = encode(part)
    if not encoding.ids:  # of characters that no token knows
        return False
    last = encoding.word_ids[-1]
    before = sum(1 for word in encoding.word_ids if word != last)
    if before >= num_tokens:
        return True
    model = tokenizer.model
    if not isinstance(model, models.BPE) or model.dropout:
        return False
    piece = _last_piece(part, tokenizer)
    needed = num_tokens - before
    longest = max(map(len, tokenizer.get_vocab()))
    if len(piece) < longest or _ids(model, piece) != encoding.ids[before:]:
        return False
    starts = _ids(model, piece)[:needed]
    ends = range(len(piece) - longest + 1, len(piece))
    return len(starts) == needed and all(
        _ids(model, piece[:end])[:needed] == starts for end in reversed(ends)
    )


def _last_piece(part: str, tokenizer: Tokenizer) -> str:
    """As the model is given it."""
    if tokenizer.normalizer is not None:
        part = tokenizer.normalizer.normalize_str(part)
    if tokenizer.pre_tokenizer is None:
        return part
    return tokenizer.pre_tokenizer.pre_tokenize_str(part)[-1][0]


def _ids(model: models.Model, piece: str) -> list[int]:
    return [token.id for token in model.tokenize(piece)]
