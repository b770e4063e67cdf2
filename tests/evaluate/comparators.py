"""Models in mteb's registry, without downloads."""

import tokenizers
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.models.model_meta import ModelMeta, ScoringFunction
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

UNKNOWN = (
    *("release_date", "languages", "n_parameters", "memory_usage_mb", "max_tokens", "embed_dim"),
    *("license", "open_weights", "public_training_code", "public_training_data"),
    *("training_datasets", "similarity_fn_name"),
)


def load_static(name, revision, **_):
    """A table of one random vector for each letter, as sentence-transformers has it."""
    letters = {letter: number for number, letter in enumerate("?abcdefghijklmnopqrstuvwxyz ")}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(letters, unk_token="?"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)])
    return SentenceTransformerEncoderWrapper(model)


def register(monkeypatch, name="tests/static", loader=load_static, **fields):
    """Put a model into mteb's registry, for one test; its metadata."""
    about = dict.fromkeys(UNKNOWN) | {
        "loader": loader,
        "name": name,
        "revision": "r1",
        "framework": ["PyTorch"],
        "similarity_fn_name": ScoringFunction.COSINE,
        "use_instructions": False,
    }
    meta = ModelMeta(**about | fields)
    monkeypatch.setitem(MODEL_REGISTRY, name, meta)
    return meta
