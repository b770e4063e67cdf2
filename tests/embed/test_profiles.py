"""The profile of embedders that write no turns, against sentence-transformers."""

import json
import shutil

import numpy as np
import pytest
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, processors

from lco_jax.config import Contrastive, DataConfig, Generative, JsonlSource, ModelRef, TrainConfig
from lco_jax.data.encode.prompt import Prompter
from lco_jax.embed.embedder import Embedder
from lco_jax.evaluate.mteb_adapter import MtebEncoder
from lco_jax.export.folders import export_model
from tests import tiny
from tests.export import runs
from tests.tokenizers import write_tokenizer

PROFILE = "qwen3-embedding"
QUERY = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)
TEXTS = ["a small cat", "Die Würde 東京 😀", " the quick  brown fox\njumps", "x<|im_end|>y"]
END = "<|endoftext|>"


def write(folder, before="", after=END):
    """A tiny Qwen3 as Qwen3-Embedding lies on the hub: its tokenizer puts an end behind texts."""
    tiny.write(folder, "qwen3", num_layers=2)
    (folder / "chat_template.jinja").unlink()
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    single = " ".join([before, "$A", after]).strip()
    ids = [(token, tokenizer.token_to_id(token)) for token in (before, after) if token]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    tokenizer.save(file)
    modules = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(modules.items())
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    settings = {"prompts": {"query": QUERY, "document": ""}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("model"))


def test_vectors_are_those_of_sentence_transformers(folder):
    theirs = SentenceTransformer(str(folder), device="cpu")
    ours = Embedder(folder, profile=PROFILE, dtype="float32", control_tokens="tokens")
    for texts in (TEXTS, ["far too long " * 20]):
        np.testing.assert_allclose(ours.encode(texts), theirs.encode(texts), atol=1e-5)
    queries = theirs.encode(TEXTS, prompt_name="query")
    np.testing.assert_allclose(ours.encode_query(TEXTS), queries, atol=1e-5)
    assert np.abs(queries - theirs.encode(TEXTS)).max() > 0.01
    in_mteb = MtebEncoder(ours).encode([{"text": TEXTS}], prompt_type=PromptType.query)
    np.testing.assert_allclose(in_mteb, queries, atol=1e-5)
    theirs.max_seq_length = 9
    ours.max_seq_length = 8  # of the text; the end comes on top
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)


@pytest.mark.slow
def test_an_export_of_a_run_keeps_the_profile(folder, tmp_path):
    run = runs.write(tmp_path / "run", folder, profile=PROFILE)
    ours = Embedder(run)
    assert ours.processor.prompter.profile == PROFILE and ours.prompts["query"] == QUERY
    found = export_model(str(run), tmp_path / "out", "sentence-transformers")
    assert not found.failures and not found.unmatched
    theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    again = Embedder(tmp_path / "out", dtype="float32")
    texts = [text for text in TEXTS if "<|" not in text]
    for name in ("query", "document"):
        expected = ours.encode(texts, prompt_name=name)
        np.testing.assert_allclose(theirs.encode(texts, prompt_name=name), expected, atol=1e-4)
        np.testing.assert_allclose(again.encode(texts, prompt_name=name), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "head", "tail"),
    [
        ("", END, "", END),
        ("<|im_start|>", "", "<|im_start|>", "<|im_end|>"),
        ("<|im_start|>", END, "<|im_start|>", END),
    ],
)
def test_what_the_tokenizer_puts_around_texts(tmp_path, before, after, head, tail):
    prompter = Prompter(write(tmp_path / "model", before, after), PROFILE)
    assert (prompter.template_head, prompter.template_tail) == (head, tail)
    with pytest.raises(ValueError, match="no chat template"):
        Prompter(tmp_path / "model")


def test_another_recipe_is_told(folder, tmp_path, caplog):
    shutil.copytree(folder, tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    Embedder(tmp_path / "model", profile=PROFILE)
    assert not caplog.text
    Embedder(tmp_path / "model")
    assert "ask for it" in caplog.text and "profile lco" in caplog.text


def test_answers_need_turns():
    data = DataConfig((JsonlSource("a.jsonl"),), profile=PROFILE)
    TrainConfig(ModelRef("m"), data, Contrastive())
    with pytest.raises(ValueError, match="writes no turns that can have answers; use `lco`"):
        TrainConfig(ModelRef("m"), data, Generative())
