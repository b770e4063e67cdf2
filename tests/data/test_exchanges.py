"""Prompts with responses as the model reads them: tokens, targets, packing, sources, going on."""

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from lco_jax.config import DataConfig, Generative, JsonlSource, MediaConfig, Memory, TfdsSource
from lco_jax.data.encode.processor import Processor
from lco_jax.data.records import Exchange, Item
from lco_jax.data.sources.open import open_source
from lco_jax.models.config import read_config
from lco_jax.objectives.loaders import GenerativeLoader
from tests import runs, tiny
from tests.data.media_files import encode, random_image

MEDIA = MediaConfig(image_min_pixels=28 * 28, image_max_pixels=9 * 28 * 28)
MEMORY = Memory(row_tokens=(64, 128), frame_rows=(256,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    tiny.write(path, "qwen2_5_vl", num_layers=1)
    runs.write_exchanges(path / "exchanges.jsonl")
    return path


@pytest.fixture(scope="module")
def processor(folder):
    return Processor(folder, read_config(folder), media=MEDIA)


def whole_turns(folder, exchange):
    """Tokens of question and answer as the chat template writes them, without pictures."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turn = {"role": "user", "content": exchange.prompt.text}
    asked = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    answered = tokenizer.apply_chat_template(
        [turn, {"role": "assistant", "content": exchange.response}], tokenize=False
    )
    return (tokenizer(text, add_special_tokens=False).input_ids for text in (asked, answered))


@pytest.mark.parametrize(
    "exchange",
    [Exchange(Item("which fox"), "the quick one"), Exchange(Item(), "plain text of a busy market")],
    ids=["question", "plain text"],
)
def test_is_what_the_chat_template_writes(folder, processor, exchange):
    (encoded,) = processor.try_encode_exchanges([exchange], 100)
    asked, answered = whole_turns(folder, exchange)
    tokens = [*processor.head.tolist(), *encoded.tokens.tolist()]
    end = processor.prompter.end_token
    assert [*tokens, end] == answered[: len(tokens) + 1]
    assert answered[answered.index(end, len(asked))] == end
    # From the last token of the prompt on, each learns the one that follows it.
    learned = np.flatnonzero(encoded.targets >= 0) + len(processor.head)
    assert learned.tolist() == list(range(len(asked) - 1, len(tokens)))
    assert encoded.targets[encoded.targets >= 0].tolist() == [*tokens[len(asked) :], end]


def test_no_question_is_added(processor):
    (encoded,) = processor.try_encode_exchanges([Exchange(Item("which fox"), "that")], 9)
    assert "Summarize" not in processor.prompter.decode(encoded.tokens)


def test_long_responses_are_cut_and_do_not_end(processor):
    exchange = Exchange(Item("say it"), "fox " * 50)
    whole, cut = (processor.try_encode_exchanges([exchange], most)[0] for most in (1000, 7))
    learned = cut.targets[cut.targets >= 0]
    assert len(learned) == 7 and processor.prompter.end_token not in learned
    assert learned.tolist() == whole.targets[whole.targets >= 0][:7].tolist()


def test_pictures_stand_before_what_is_learned(processor):
    image = encode(random_image(0, (80, 61)), "PNG")
    with_image, without = processor.try_encode_exchanges(
        [Exchange(Item("what", images=(image,)), "a fox"), Exchange(Item("what"), "a fox")], 9
    )
    (medium,) = with_image.pictures
    assert (with_image.targets[medium.places] == -1).all()
    assert len(with_image.targets) == len(with_image.tokens) == len(with_image.positions)
    tail = without.targets[without.targets >= 0]
    assert with_image.targets[-len(tail) :].tolist() == tail.tolist()
    assert with_image.hash != without.hash


def make_loader(folder, processor, chunks=1, **options):
    config = DataConfig((JsonlSource(str(folder / "exchanges.jsonl")),), batch_size=12)
    memory = Memory(chunks, row_tokens=MEMORY.row_tokens, frame_rows=MEMORY.frame_rows)
    return GenerativeLoader(config, memory, processor, Generative(), seed=3, num_steps=6, **options)


def items_of(batch):
    """Tokens and targets of each item by its number."""
    segments = batch.segments.ravel()
    return {
        int(number): (
            batch.tokens.ravel()[segments == number].tolist(),
            batch.targets.ravel()[segments == number].tolist(),
        )
        for number in np.unique(segments[segments > 0])
    }


def test_packing_loses_nothing_and_resumes(folder, processor):
    loader = make_loader(folder, processor)
    whole = [items_of(batch) for _, batch, _ in loader]
    for step, items in enumerate(whole):
        examples = [loader._stream[step * 12 + index] for index in range(12)]
        for number, encoded in enumerate(processor.try_encode_exchanges(examples, 512), 1):
            assert items[number] == (encoded.tokens.tolist(), encoded.targets.tolist())
    for _, batch, _ in make_loader(folder, processor):
        assert (batch.targets[batch.segments == 0] == -1).all()
    chunked = make_loader(folder, processor, chunks=3, num_shards=2)
    assert [items_of(batch) for _, batch, _ in chunked] == whole
    first = make_loader(folder, processor)
    for step, _, _ in first:
        if step == 2:
            break
    second = make_loader(folder, processor)
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert [items_of(batch) for _, batch, _ in second] == whole[3:]


def exchanges_of(source):
    return open_source(source, Exchange).records


def test_prepared_datasets():
    names = exchanges_of(TfdsSource("emoji/id", "test", prompt="Apa ini?"))
    words = exchanges_of(TfdsSource("emoji", "test", response="keywords"))
    assert names[0].prompt.text == "Apa ini?" and names[0].prompt.images
    assert words[0].prompt.text == "" and words[0].prompt.images
    assert words[0].response.count(", ") >= 1 and names[0].id == words[0].id
    pairs = exchanges_of(TfdsSource("wordnet", "test", prompt="What does it mean?"))
    shown = open_source(TfdsSource("wordnet", "test")).records[0]
    assert pairs[0].prompt.text == f"{shown.anchor.text}\nWhat does it mean?"
    assert pairs[0].response == shown.positive.text
    plain = exchanges_of(TfdsSource("wordnet", "test", prompt=None))[0]
    assert plain.prompt.is_empty and plain.response == shown.positive.text
    with pytest.raises(ValueError, match=r"emoji has no field 'caption' .* must be one of"):
        exchanges_of(TfdsSource("emoji", response="caption"))
