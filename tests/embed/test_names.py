"""The names and arguments of sentence-transformers, against the library that is installed."""

import ast
import inspect
import logging
import re
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import jax
import mteb
import numpy as np
import pytest
import sentence_transformers
import torch
from mteb.mocks import ALL_MOCK_TASK_TEST_GRID as MOCK_TASKS
from mteb.models.models_protocols import EncoderProtocol
from sentence_transformers import SentenceTransformer, quantize_embeddings
from sentence_transformers.util import SimilarityFunction

from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.precision import PRECISIONS, quantize
from lco_jax.evaluate.mteb_adapter import MtebEncoder
from tests import meshes, tiny
from tests.data.media_files import random_image

PAGE = Path(__file__).parents[2] / "docs" / "sentence_transformers.md"
TEXTS = ["a quick brown fox", "two women watch", "  leading space", "word " * 30, "x"]
HERE = ("same", "different", "refused", "absent")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny", num_layers=1).folder


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return Embedder(checkpoint, mesh=meshes.make((1, 1, 1)))


@pytest.fixture(scope="module")
def vectors(embedder):
    return embedder.encode(TEXTS)


# ------------------------------------------------------------------------------------ the page


def rows(heading: str) -> dict[str, str]:
    """What the table under a heading says of each name."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[1] in HERE:
            assert cells[1] == "same" or cells[2], f"{line} gives no reason"
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1])
    return found


def arguments(function) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


def ours(function) -> set[str]:
    return arguments(function) - {"others", "arguments", "options"}


def public_names() -> set[str]:
    """Of the class and of what its constructors set, without those of torch."""
    names = {name for name in dir(SentenceTransformer) if not name.startswith("_")}
    for cls in SentenceTransformer.__mro__:
        if cls.__module__.startswith("sentence_transformers") and "__init__" in vars(cls):
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))):
                is_stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                if is_stored and ast.unparse(node.value) == "self" and node.attr[0] != "_":
                    names.add(node.attr)
    return names - set(dir(torch.nn.Sequential))


def test_the_page_has_every_name_and_argument():
    assert sentence_transformers.__version__.startswith("6.2")
    assert set(rows("Constructor")) == arguments(SentenceTransformer.__init__)
    heading = "`encode`, `encode_query`, `encode_document`"
    for method in ("encode", "encode_query", "encode_document"):
        assert set(rows(heading)) == arguments(getattr(SentenceTransformer, method))
    assert set(rows("Methods and attributes")) == public_names() | {"torch.nn.Sequential"}


def test_the_page_is_right_about_what_is_there(embedder):
    table = rows("Methods and attributes")
    for name, here in table.items():
        if name != "torch.nn.Sequential":
            assert hasattr(embedder, name) == (here != "absent"), name
    for name in vars(torch.nn.Sequential).keys() | vars(torch.nn.Module).keys():
        assert name.startswith("_") or not hasattr(embedder, name), name
    with pytest.raises(AttributeError, match="open another Embedder"):
        embedder.to("cuda")


@pytest.mark.parametrize(
    ("call", "heading", "values"),
    [
        ("Embedder", "Constructor", {"modules": [1], "config_kwargs": {"a": 1}, "backend": "onnx",
         "use_auth_token": "t", "processor_kwargs": {"max_pixels": 1}, "model_card_data": "a"}),
        ("encode", "`encode`, `encode_query`, `encode_document`",
         {"pool": {"input": 1}, "chunk_size": 4}),
    ],
)  # fmt: skip
def test_arguments_are_taken_or_refused_by_name(embedder, call, heading, values):
    refused = {name for name, here in rows(heading).items() if here == "refused"}
    assert refused == values.keys()
    function = Embedder if call == "Embedder" else embedder.encode
    taken = ours(Embedder.__init__ if call == "Embedder" else Embedder.encode)
    assert set(rows(heading)) - refused <= taken | {"model_name_or_path", "kwargs"}
    first = "nowhere" if call == "Embedder" else ["a"]
    for name, value in values.items():
        with pytest.raises(ValueError, match=rf"{name}"):
            function(first, **{name: value})
    with pytest.raises(ValueError, match=f"{call} has no argument 'promt'; did you mean 'prompt"):
        function(first, promt="a")
    # Of all arguments, not only of those that are refused.
    close, meant = (
        ("truncatedim", "truncate_dim")
        if call == "Embedder"
        else ("showprogressbar", "show_progress_bar")
    )
    with pytest.raises(ValueError, match=f"'{close}'; did you mean '{meant}'"):
        function(first, **{close: 8})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncate_dim": -5}, "truncate_dim=-5 must be a positive"),
        ({"truncate_dim": 0}, "truncate_dim=0 must be a positive"),
        ({"truncate_dim": 2.5}, "truncate_dim=2.5 must be"),
        ({"truncate_dim": True}, "truncate_dim=True must be"),
        ({"max_text_tokens": 0}, "max_text_tokens=0 must be a positive"),
        ({"max_text_tokens": -5}, "max_text_tokens=-5 must be a positive"),
        ({"profile": "junk"}, r"profile='junk' is none of \['lco', 'mteb', "),
        ({"profile": ""}, "profile='' is none of"),
        ({"device": "abacus"}, "device='abacus' is not here"),
        ({"device": "cpu:99"}, "device='cpu:99' is not here"),
        ({"device": ["cpu", "cpu"]}, "one process drives all devices"),
        ({"model_kwargs": {"attn_implementation": "sdpa"}}, r"\['attn_implementation'\]"),
        ({"model_kwargs": {"dtype": torch.float16}}, "expected 'float32' or 'bfloat16'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_loaded(options, message):
    with pytest.raises(ValueError, match=message):
        Embedder("no/such-model", **options)


def test_settings_that_need_the_model(checkpoint):
    one = {"mesh": meshes.make((1, 1, 1))}
    with pytest.raises(ValueError, match=r"truncate_dim=33 is not in 1\.\.32"):
        Embedder(checkpoint, truncate_dim=33, **one)
    with pytest.raises(ValueError, match="revision='main' is for hub ids"):
        Embedder(checkpoint, revision="main", **one)
    with pytest.raises(ValueError, match=r"no prompt 'search'; there are \['document', 'query'\]"):
        Embedder(checkpoint, default_prompt_name="search", **one)
    with pytest.raises(ValueError, match="both say where"):
        Embedder(checkpoint, device="cpu", **one)
    with pytest.raises(ValueError, match="is none of"):
        Embedder(checkpoint, similarity_fn_name="maxsim", **one)
    with pytest.raises(ValueError, match="give a model"):
        Embedder()
    named = Embedder(
        model_name_or_path=str(checkpoint),
        device="cpu:3",
        model_kwargs={"torch_dtype": torch.bfloat16},
        trust_remote_code=True,
        modules=None,
    )
    assert named.device == jax.devices()[3] and named.dtype == "bfloat16"


def test_what_is_no_name_of_a_model(tmp_path, monkeypatch):
    for name in ("", " "):
        with pytest.raises(ValueError, match="give a model"):
            Embedder(name)
    with pytest.raises(ValueError, match="model='a' and model_name_or_path='b' are two names"):
        Embedder("a", model_name_or_path="b")
    monkeypatch.setenv("HOME", str(tmp_path))
    for stage in ("refine", "text"):
        (tmp_path / "study" / stage).mkdir(parents=True)
        (tmp_path / "study" / stage / "config.json").write_text('{"format": "lco_jax run 1"}')
    wanted = f"{tmp_path}/study is no model but a folder of runs; open {tmp_path}/study/refine or "
    with pytest.raises(FileNotFoundError, match=re.escape(wanted)):
        Embedder("~/study")


def test_the_hub_is_asked_as_told(monkeypatch, checkpoint):
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    options = {"revision": "v2", "token": "t", "cache_folder": "c", "local_files_only": True}
    opened = Embedder("org/name", mesh=meshes.make((1, 1, 1)), **options)
    patterns = [given.pop("allow_patterns") for _, given in asked]
    given = {"revision": "v2", "token": "t", "cache_dir": "c", "local_files_only": True}
    # What it is first, so that no weights are fetched that could not be used.
    assert asked == 2 * [("org/name", given)] and "*.safetensors" not in patterns[0]
    asked.clear()
    assert opened.identity == Embedder(checkpoint, mesh=meshes.make((1, 1, 1))).identity
    opened.save_pretrained(checkpoint.parent / "of-the-hub", verified=False)
    assert not asked  # what was opened is what is saved


# ---------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions_are_those_of_the_library(embedder, vectors, precision):
    found = embedder.encode(TEXTS, precision=precision)
    if precision == "float16":
        wanted = vectors.astype(np.float16)
    else:
        wanted = quantize_embeddings(vectors, precision)
        assert quantize(np.zeros((0, 20), np.float32), precision).shape == (
            quantize_embeddings(np.zeros((0, 20), np.float32), precision).shape
        )
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_precision_of_few_vectors(embedder, caplog):
    with pytest.raises(ValueError, match="this call has one"):
        embedder.encode("a", precision="int8")
    with caplog.at_level(logging.WARNING, "lco_jax"):
        embedder.encode(TEXTS, precision="uint8")
    assert "taken from 5 vectors" in caplog.text
    with pytest.raises(ValueError, match="precision='int4' is none of"):
        embedder.encode(TEXTS, precision="int4")
    # An input without a vector has no say in the steps.
    errors = {}
    gone = Item(images=("gone.png",))
    found = embedder.encode([*TEXTS[:2], gone, *TEXTS[2:]], precision="int8", errors=errors)
    assert list(errors) == [2] and not found[2].any()
    wanted = embedder.encode(TEXTS, precision="int8")
    np.testing.assert_array_equal(np.delete(found, 2, axis=0), wanted)


def test_tensors_are_given_where_they_are_asked_for(embedder, vectors, monkeypatch):
    tensor = embedder.encode(TEXTS, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor.numpy(), vectors, atol=1e-5)
    several = embedder.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(several, list) and all(isinstance(x, torch.Tensor) for x in several)
    assert embedder.encode("a", convert_to_tensor=True).shape == (32,)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        embedder.encode(TEXTS, convert_to_tensor=True)


def test_batches_do_not_change_vectors(embedder, vectors):
    for size in (2, 100):
        found = embedder.encode(TEXTS, batch_size=size)
        np.testing.assert_allclose(found, vectors, atol=1e-5)
    errors = {}
    inputs = [*TEXTS[:3], Item(images=("a.png",)), *TEXTS[3:]]
    embedder.encode(inputs, batch_size=2, errors=errors)
    assert list(errors) == [3]
    with pytest.raises(ValueError, match="batch_size=0 must be"):
        embedder.encode(TEXTS, batch_size=0)


def test_other_arguments_of_encode(embedder, vectors, capsys):
    same = embedder.encode(
        sentences=TEXTS, normalize_embeddings=False, device="cpu", task="query",
        show_progress_bar=True, output_value="sentence_embedding",
    )  # fmt: skip
    np.testing.assert_allclose(same, vectors, atol=1e-5)
    assert "encoding" in capsys.readouterr().err
    assert embedder.encode(TEXTS, None, None, 32, False).shape == (5, 32)
    assert embedder.encode(np.array(TEXTS)).shape == (5, 32)
    for options, message in [
        ({"output_value": "token_embeddings"}, "output_value='token_embeddings': only the state"),
        ({"output_value": None}, "output_value=None"),
        ({"device": "cpu:7"}, "the weights lie on"),
        ({"task": "classify"}, "task='classify'"),
        ({"processing_kwargs": {"text": {}}}, "beside each medium"),
        ({"truncate_dim": 0}, "truncate_dim=0"),
        ({"prompt_name": "clustering"}, "no prompt 'clustering'"),
    ]:
        with pytest.raises(ValueError, match=message):
            embedder.encode(TEXTS, **options)
    with pytest.raises(ValueError, match="no inputs"):
        embedder.encode_query()
    for call in (embedder.start_multi_process_pool, embedder.encode_multi_process):
        with pytest.raises(ValueError, match="one process drives all devices"):
            call(["cpu"])


def test_prompts(checkpoint, embedder, tmp_path):
    one = {"mesh": meshes.make((1, 1, 1))}
    asked = embedder.encode(["find: a fox", "find: x"])
    np.testing.assert_allclose(embedder.encode(["a fox", "x"], prompt="find: "), asked, atol=1e-5)
    prompted = Embedder(checkpoint, prompts={"query": "find: ", "passage": "find: "}, **one)
    assert prompted.prompts["document"] == ""
    np.testing.assert_allclose(prompted.encode_query(["a fox", "x"]), asked, atol=1e-5)
    del prompted.prompts["document"]
    np.testing.assert_allclose(prompted.encode_document(["a fox", "x"]), asked, atol=1e-5)
    plain = embedder.encode("a fox")
    np.testing.assert_allclose(prompted.encode("a fox"), plain, atol=1e-5)
    np.testing.assert_allclose(prompted.encode_query("a fox", prompt=""), plain, atol=1e-5)
    # The default one counts everywhere, and in what vectors are kept under.
    saved = tmp_path / "saved"
    saved.mkdir()
    for file in checkpoint.iterdir():
        (saved / file.name).symlink_to(file)
    settings = '{"prompts": {"query": null, "find": "find: "}, "default_prompt_name": "find"}'
    (saved / "config_sentence_transformers.json").write_text(settings)
    default = Embedder(saved, cache=tmp_path / "cache", **one)
    np.testing.assert_allclose(default.encode(["a fox", "x"]), asked, atol=1e-5)
    ((vectors, _),) = default.encode_pieces([[Item("a fox"), Item("x")]])
    np.testing.assert_allclose(vectors, asked, atol=1e-5)
    ((vectors, _),) = Embedder(saved, **one).encode_pieces([[Item("a fox"), Item("x")]])
    np.testing.assert_allclose(vectors, asked, atol=1e-5)
    np.testing.assert_allclose(default.encode("a fox", prompt=""), plain, atol=1e-5)
    assert "find: " in default.identity and "find: " not in prompted.identity


def test_a_model_of_texts_says_so_of_media(embedder):
    inputs = ["a", "x", {"image": "cat.png"}]
    message = (
        r"^input 2: it has the image cat\.png, but the model reads texts only; use a model that"
    )
    for encode in (embedder.encode, embedder.tokenize):
        with pytest.raises(ValueError, match=message):
            encode(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": 3}, r"prompt is of type int \(3\), expected one text for all"),
        ({"prompt": ["a", "b"]}, "prompt is of type list"),
        ({"prompt_name": ["query"]}, r"no prompt \['query'\]; there are"),
        ({"prompt_name": 3}, "no prompt 3"),
    ],
    ids=str,
)
def test_prompts_are_texts(embedder, options, message):
    for method in (embedder.encode, embedder.encode_query):
        with pytest.raises(ValueError, match=message):
            method(["a"], **options)


def test_prompts_of_other_types_are_named(checkpoint, embedder):
    with pytest.raises(ValueError, match="prompt is of type int"):
        embedder.tokenize(["a"], prompt=3)
    one = {"mesh": meshes.make((1, 1, 1))}
    odd = Embedder(checkpoint, prompts={"query": 3}, **one)
    with pytest.raises(ValueError, match=r"prompts\['query'\] is of type int"):
        odd.encode_query("a")


def test_a_prompt_is_the_text_of_a_medium(tmp_path):
    folder = tiny.write(tmp_path, "qwen2_5_vl", num_layers=1).folder
    embedder = Embedder(folder, mesh=meshes.make((1, 1, 1)))
    image = random_image(0)
    found = embedder.encode([image, {"text": "words", "image": image}], prompt="find ")
    wanted = [{"text": "find ", "image": image}, {"text": "find words", "image": image}]
    np.testing.assert_allclose(found, embedder.encode(wanted), atol=1e-5)
    tokens = embedder.tokenize([image, "a text"])
    assert tokens["attention_mask"].sum(axis=1)[1] < tokens["attention_mask"].sum(axis=1)[0]
    assert embedder.supports(("image", "text")) and embedder.supports("message")
    assert not embedder.supports(("image", "audio"))


def test_lengths(checkpoint, embedder):
    own = Embedder(checkpoint, mesh=meshes.make((1, 1, 1)))
    assert own.max_seq_length == own.get_max_seq_length() == 650
    before = own.revision
    own.max_seq_length = 3
    assert own.revision != before
    text = own.processor.prompter.decode(own.processor.prompter.tokens_of(["word " * 9])[0][:3])
    wanted = embedder.encode(text)
    np.testing.assert_allclose(own.encode("word " * 9), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="max_seq_length=0"):
        own.max_seq_length = 0
    tokens = embedder.tokenize(["a fox", "x"])["input_ids"]
    rendered = embedder.processor.prompter.render(Item("a fox"))
    assert tokens[0].tolist() == embedder.tokenizer(rendered, add_special_tokens=False).input_ids


def test_widths(checkpoint, embedder, vectors):
    short = Embedder(checkpoint, mesh=meshes.make((1, 1, 1)), truncate_dim=8)
    dimensions = short.get_embedding_dimension(), short.get_sentence_embedding_dimension()
    assert dimensions == (8, 8) and short.full_width == 32
    wanted = embedder.encode(TEXTS, truncate_dim=8)
    np.testing.assert_allclose(short.encode(TEXTS), wanted, atol=1e-5)
    with short.truncate_embeddings(4):
        assert short.encode("a").shape == (4,)
    with short.truncate_embeddings(None):
        np.testing.assert_allclose(short.encode(TEXTS), vectors, atol=1e-5)
    assert short.encode([]).shape == (0, 8)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities_are_those_of_the_library(embedder, vectors, name):
    embedder.similarity_fn_name = SimilarityFunction(name)
    assert embedder.similarity_fn_name == name
    a, b = vectors * np.arange(1, 6)[:, None].astype(np.float32), vectors[::-1] + 0.1
    wanted = SimilarityFunction.to_similarity_fn(name)(a, b)
    pairs = SimilarityFunction.to_similarity_pairwise_fn(name)(a, b)
    for given in (a, torch.from_numpy(a), list(a)):
        found, found_pairs = embedder.similarity(given, b), embedder.similarity_pairwise(given, b)
        assert isinstance(found, torch.Tensor) == isinstance(given, torch.Tensor)
        np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-5)
        np.testing.assert_allclose(np.asarray(found_pairs), pairs, atol=1e-5)
    assert embedder.similarity(a[0], b).shape == (1, 5)
    embedder.similarity_fn_name = None
    assert embedder.similarity_fn_name == "cosine"


def test_vectors_that_do_not_fit_are_named(embedder, vectors):
    for compare in (embedder.similarity, embedder.similarity_pairwise):
        with pytest.raises(ValueError, match=r"of width 32 cannot be compared with .* width 8"):
            compare(vectors, vectors[:, :8])
    with pytest.raises(ValueError, match="5 and 3 vectors are no pairs"):
        embedder.similarity_pairwise(vectors, vectors[:3])


# -------------------------------------------------------------------------- exports and mteb


def test_saved_and_pushed_folders_give_these_vectors(
    checkpoint, embedder, vectors, tmp_path, monkeypatch
):
    uploaded = {}

    class Hub:
        def __init__(self, token=None):
            uploaded["token"] = token

        def create_repo(self, name, **options):
            uploaded["repo"] = name
            return SimpleNamespace(repo_id=name)

        def upload_folder(self, *, folder_path, **options):
            model = SentenceTransformer(str(folder_path), device="cpu")
            uploaded["vectors"] = model.encode(TEXTS)
            return SimpleNamespace(commit_url="commit", pr_url=None)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert embedder.push_to_hub("us/ours", token="t", verified=False) == "commit"
    np.testing.assert_allclose(uploaded["vectors"], vectors, atol=1e-5)
    assert (uploaded["token"], uploaded["repo"]) == ("t", "us/ours")
    with pytest.raises(ValueError, match="safetensors"):
        embedder.save_pretrained(tmp_path / "out", safe_serialization=False)
    with pytest.raises(ValueError, match="takes no train_datasets"):
        embedder.save_pretrained(tmp_path / "out", train_datasets=["a"])
    options = {"truncate_dim": 8, "prompts": {"query": "find: "}, "profile": "mteb"}
    other = Embedder(checkpoint, mesh=meshes.make((1, 1, 1)), **options)
    other.max_seq_length = 9
    lost = "max_seq_length, profile, prompts, truncate_dim"
    with pytest.raises(ValueError, match=f"would not keep {lost} of this"):
        other.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mteb_takes_an_embedder(checkpoint, embedder):
    assert isinstance(embedder, EncoderProtocol)
    kinds = {"STS", "Retrieval", "Classification", "PairClassification", "BitextMining"}
    tasks = {
        task.metadata.type: task for task in MOCK_TASKS if task.metadata.modalities == ["text"]
    }
    chosen = [task for kind, task in tasks.items() if kind in kinds]
    assert len(chosen) == len(kinds)
    found = mteb.evaluate(embedder, chosen, cache=None, show_progress_bar=False, co2_tracker=False)
    assert len(found.task_results) == len(chosen)
    assert found.model_name == "lco_jax/tiny" and found.model_revision == embedder.revision
    retrieval = tasks["Retrieval"]
    wrapped = mteb.evaluate(MtebEncoder(embedder), retrieval, cache=None, co2_tracker=False)
    (direct,) = (r for r in found.task_results if r.task_name == retrieval.metadata.name)
    assert direct.get_score() == wrapped.task_results[0].get_score()
