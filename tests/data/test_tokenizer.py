"""Which tokenizer is read from a folder: the one that transformers chooses, without its wait."""

import json
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from lco_jax.data.encode.template import load_tokenizer
from lco_jax.models.families import FAMILIES
from tests.tokenizers import write_tokenizer


def write(folder, family, **changes):
    """A tokenizer of Qwen's kind with the config of a model; `changes` are of its settings."""
    write_tokenizer(folder, family if family != "qwen2_5_omni" else "qwen2_5_omni_thinker")
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "name",
    ["Qwen2Tokenizer", "Qwen2TokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast"],
)
def test_it_is_the_one_of_transformers(tmp_path, family, name):
    folder = write(tmp_path, family, tokenizer_class=name)
    found, expected = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert type(found) is type(expected)
    assert found.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()
    assert found.special_tokens_map == expected.special_tokens_map
    text = "<|im_start|>Don't  jump,\nfox 42 東京<|im_end|>"
    assert found(text)["input_ids"] == expected(text)["input_ids"]


@pytest.mark.parametrize(
    ("family", "name"), [("qwen2", "Qwen2Tokenizer"), ("qwen2_5_vl", "TokenizersBackend")]
)
def test_torch_is_not_loaded(tmp_path, family, name):
    """It takes seconds of every start where it is installed, and nothing here needs it."""
    program = """
import sys
from pathlib import Path
from lco_jax.data.encode.template import load_tokenizer
load_tokenizer(Path(sys.argv[1]))
sys.exit("torch was loaded" if "torch" in sys.modules else 0)
"""
    folder = write(tmp_path, family, tokenizer_class=name)
    result = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
