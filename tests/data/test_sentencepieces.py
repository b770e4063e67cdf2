"""Tokenizers that put a blank before texts and divide them nowhere have the ids of transformers."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lco_jax.data.encode import text_tokenizer
from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.encode.text_tokenizer import TextTokenizer
from lco_jax.data.records import Item
from tests.sentencepieces import BLANKS, CONTROL, write_sentencepiece

PROMPT = "\nSummarize the above text in one word:"
TEXTS = (
    *("a cat", " a cat", "  two", "    four", "\n a", "\n\nx", "\tx", "x ", "x  \n", "]x", "the"),
    *("😀 x", "é東京", "▁x", "▁", "x▁ y", "\u0301e", "\u200b", "<0x0A>", "a<0x0A>b", "<s", "s>"),
    *(
        "< s >",
        "<<s",
        "The quick  brown fox\njumps. " * 60,
        "ab" * 500,
        "[INST",
        "<|im",
        "\x00a",
        "quick",
    ),
)
CONTROLS = ("<s>", "a<s>b", "</s>", "<unk>", "x </s> y", "<s><s>", "\n<s>", " <s> ", "<<s>>")
pieces = st.text(max_size=6) | st.sampled_from([" ", "  ", "\n", "▁", "<", "s", ">", "/", "[INST]"])
texts = st.lists(pieces, max_size=8).map("".join).filter(str.strip)


class Case:
    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.prompter = Prompter(folder, max_text_tokens=10_000)
        self.as_tokens = Prompter(folder, max_text_tokens=10_000, control_tokens="tokens")
        added = self.tokenizer.backend_tokenizer.get_added_tokens_decoder()
        self.control = {index for index, token in added.items() if token.special}

    def expected(self, *contents, answer=False):
        roles = zip(("user", "assistant"), contents, strict=False)
        turns = [{"role": role, "content": content} for role, content in roles]
        rendered = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=not answer
        )
        return self.tokenizer(rendered, add_special_tokens=False)["input_ids"]

    def found(self, prompter, text):
        (encoded,) = prompter.encode([Item(text)])
        return [*prompter.head.tolist(), *encoded.tokens.tolist()]


@pytest.fixture(scope="module", params=[(b, t) for b in BLANKS for t in CONTROL], ids="-".join)
def case(request, tmp_path_factory):
    return Case(write_sentencepiece(tmp_path_factory.mktemp("tokenizer"), *request.param))


def test_the_stand_in_is_of_its_kind(case):
    """Merges make `<s>` of characters, and what no token knows is bytes."""
    whole = case.tokenizer.backend_tokenizer
    whole.encode_special_tokens = True
    assert case.tokenizer.bos_token_id in whole.encode("<s>", add_special_tokens=False).ids
    whole.encode_special_tokens = False
    assert "<0xF0>" in case.tokenizer.tokenize("😀")


def test_ordinary_texts(case):
    for text in TEXTS:
        expected = case.expected(text + PROMPT)
        assert case.found(case.prompter, text) == expected, text
        assert case.found(case.as_tokens, text) == expected, text


@settings(max_examples=40, deadline=None)
@given(text=texts)
@example(text="  <s> [INST]")
def test_any_text(case, text):
    expected = case.expected(text + PROMPT)
    assert case.found(case.as_tokens, text) == expected
    found = case.found(case.prompter, text)
    assert _control(case, found) == _control(case, case.expected("x" + PROMPT))
    if len(_control(case, expected)) == len(_control(case, found)):
        assert found == expected


def _control(case, ids):
    return [token for token in ids if token in case.control]


def test_control_tokens_in_texts_are_characters(case):
    own = _control(case, case.expected("x" + PROMPT))
    for text in (*CONTROLS, "[/INST] x", "<|im_end|>\n<|im_start|>assistant\n"):
        found = case.found(case.prompter, text)
        assert _control(case, found) == own, text
        assert text.strip() in case.tokenizer.decode(found)
        assert case.found(case.as_tokens, text) == case.expected(text + PROMPT), text


def test_responses(case):
    """As they are after what the template writes before them."""
    for response in ("a cat", " cat", "x", "é東京", "the quick brown fox", "<"):
        (encoded,) = case.prompter.encode_exchanges([Item("a word")], [response], 200)
        found = [*case.prompter.head.tolist(), *encoded.tokens.tolist()]
        expected = case.expected("a word", response, answer=True)
        assert found == expected[: len(found)], response
        assert expected[len(found)] == encoded.targets[-1] == case.prompter.end_token
    (encoded,) = case.prompter.encode_exchanges([Item("a word")], ["a<s>b</s>"], 200)
    assert not {*encoded.targets[:-1].tolist()} & case.control


@pytest.mark.parametrize("limit", [1, 7, 30])
def test_texts_are_cut_as_transformers_cuts(case, limit):
    reader = TextTokenizer(case.tokenizer.backend_tokenizer)
    for text in TEXTS:
        ids = case.tokenizer(text, add_special_tokens=False)["input_ids"]
        expected = text if len(ids) <= limit else case.tokenizer.decode(ids[:limit])
        assert reader.cut([text], limit) == [expected], text


SLOW = [pytest.param(unit, marks=pytest.mark.slow) for unit in ("the quick brown fox ", "<s> ")]


@pytest.mark.parametrize("unit", ["abcdefgh", "東京タワー", *SLOW])
def test_long_texts(case, monkeypatch, unit):
    text = unit * (150_000 // len(unit))
    reader = TextTokenizer(case.tokenizer.backend_tokenizer)
    fast = reader.cut([text], 300), reader.beginnings([text], 70)
    monkeypatch.setattr(text_tokenizer, "LONG_CHARS", 1 << 40)
    assert fast == (reader.cut([text], 300), reader.beginnings([text], 70))
