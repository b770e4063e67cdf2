"""Tokens of an item against the checkpoint's own chat template and tokenizer."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.records import Item
from tests.tokenizers import CHAT_TEMPLATE, SPECIALS, write_tokenizer

PROMPT = "\nSummarize the above text in one word:"
texts = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from([*SPECIALS, "\n", "\n\n", " \n", "  ", "user", "<|", "\u0301", "😀", "ไทย"]),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def prompter(folder):
    """Reads control tokens in texts as transformers does."""
    return Prompter(folder, control_tokens="tokens")


def reference(tokenizer, text):
    turn = [{"role": "user", "content": text + PROMPT}]
    rendered = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return tokenizer(rendered, add_special_tokens=False)["input_ids"]


@settings(max_examples=300, deadline=None)
@given(text=texts.filter(str.strip))
@example(text="\n\n\nx")
@example(text="<|im_end|>\n<|im_start|>assistant\n")
@example(text="\u0301e")
@example(text="x\n\n")
def test_head_and_tokens_are_the_whole_turn(prompter, tokenizer, text):
    assert prompter._rest == "\n"  # the fast way is the one under test
    (encoded,) = prompter.encode([Item(text)])
    expected = reference(tokenizer, text)
    assert [*prompter.head, *encoded.tokens] == expected
    assert encoded.tokens.dtype == prompter.head.dtype == "int32"


def test_head_is_the_longest_and_ends_before_the_newline(prompter, tokenizer):
    assert tokenizer.decode(prompter.head).endswith("<|im_start|>user")
    first = {ids.tokens[0] for ids in prompter.encode([Item("x"), Item("\n\nx")])}
    assert len(first) == 2  # one token more would not be common to all


def test_whole_turns_are_tokenised_where_the_rest_alone_differs(folder, tokenizer):
    prompter = Prompter(folder)
    prompter._rest = None
    items = [Item("a dog"), Item("\n\nx"), Item("東京")]
    slow = prompter.encode(items)
    fast = Prompter(folder).encode(items)
    assert [ids.tokens.tolist() for ids in slow] == [ids.tokens.tolist() for ids in fast]


@pytest.mark.parametrize("limit", [1, 7, 30])
def test_texts_are_cut_alone_and_decoded(folder, tokenizer, limit):
    prompter = Prompter(folder, max_text_tokens=limit, control_tokens="tokens")
    samples = [
        "the quick brown fox " * 9,
        "東京タワー" * 9,
        "<|im_end|> and\n" * 20,
        "a",
        "é" * limit,
    ]
    for text, encoded in zip(samples, prompter.encode([Item(t) for t in samples]), strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        cut = tokenizer.decode(ids[:limit]) if len(ids) > limit else text
        assert [*prompter.head, *encoded.tokens] == reference(tokenizer, cut)


def test_profiles(folder):
    assert Prompter(folder).max_text_tokens == 650
    assert Prompter(folder, "mteb").max_text_tokens == 300
    assert Prompter(folder, "mteb", 40).max_text_tokens == 40
    long = [Item("word " * 900)]
    (lco,), (mteb,) = Prompter(folder).encode(long), Prompter(folder, "mteb").encode(long)
    assert len(lco.tokens) - len(mteb.tokens) == 350


def test_content_hash(prompter):
    first, same, other = prompter.encode([Item("a"), Item("a", id="x"), Item("b")])
    assert first.hash == same.hash != other.hash
    assert first.hash == 0x40F89E395B66422F  # of `printf a | b2sum -l 64`


def test_describe_is_json_and_complete(prompter, tokenizer):
    description = json.loads(json.dumps(prompter.describe()))
    assert description["head"] == prompter.head.tolist()
    whole = description["template_head"] + "x" + PROMPT + description["template_tail"]
    assert tokenizer(whole)["input_ids"] == reference(tokenizer, "x")
    assert whole == prompter.render(Item("x"))


@pytest.mark.parametrize("name", ["chat_template.json", "chat_template.jinja"])
def test_template_kept_with_the_processor(tmp_path, prompter, name):
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    # As multimodal checkpoints write it: content is a list of parts.
    template = CHAT_TEMPLATE.replace("message['content'] is string", "false").replace("MEDIA", "")
    text = json.dumps({"chat_template": template}) if name.endswith("json") else template
    (tmp_path / name).write_text(text)
    found = Prompter(tmp_path, control_tokens="tokens").describe()
    assert found == prompter.describe()


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        Prompter(tmp_path / "absent")
    with pytest.raises(ValueError, match="has no tokenizer"):
        Prompter(tmp_path)
    write_tokenizer(tmp_path)
    template = (tmp_path / "chat_template.jinja").read_text()
    trimming = template.replace("- message['content'] -", "- message['content'] | trim -")
    (tmp_path / "chat_template.jinja").write_text(trimming)
    with pytest.raises(ValueError, match="does not keep the text"):
        Prompter(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        Prompter(tmp_path)


def test_bad_items_are_named(prompter):
    with pytest.raises(ValueError, match="item q7 is empty"):
        prompter.encode([Item("a"), Item(" ", id="q7")])
    with pytest.raises(ValueError, match=r"'a': has the image dog\.png, but .* reads texts only"):
        prompter.encode([Item("a", images=("dog.png",))])
