"""A small omni model of a text decoder and Whisper's encoder: as transformers reads it."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperConfig,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import MelConfig
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.lab import omni_parts
from tests import hf_items, meshes, tiny
from tests.data.audio_files import plain, tones
from tests.data.media_files import encode, random_image
from tests.lab.test_whisper import SIZES, variables_of, write_variables
from tests.tokenizers import MEDIA_IDS, write_tokenizer

ENCODER = SIZES | {"num_mel_bins": 128}
SPARE = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SPARE += ("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    parts = tmp_path_factory.mktemp("parts")
    decoder = tiny.write(parts / "decoder", num_layers=2).folder
    write_tokenizer(decoder, "qwen2_5_vl")  # its media tokens are the spare ones
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    (decoder / "generation_config.json").write_text("{}")
    torch.manual_seed(0)
    encoder = WhisperEncoder(WhisperConfig(**ENCODER)).eval().requires_grad_(False)
    for name, parameter in encoder.named_parameters():
        spread = 0.3 if parameter.ndim == 1 else 0.1
        parameter.copy_(spread * torch.randn_like(parameter) + ("norm.weight" in name))
    whisper = write_variables(parts / "model.bin", variables_of(encoder))
    target = parts / "omni"
    target.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        spare = {name: tokenizer.convert_tokens_to_ids(name) for name in SPARE}
        assert set(spare.values()) == set(MEDIA_IDS.values())
        patch.setattr(omni_parts, "_SPARE", spare)
        omni_parts.assemble_omni(decoder, whisper, target)
    return target


def test_text_and_audio_as_transformers_embeds_them(folder):
    model, loading = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    model.eval()
    checkpoint = tiny.Tiny(folder, model)
    embedder = Embedder(folder, mesh=meshes.make((1, 1, 1)), dtype="float32")
    assert embedder.modalities == ("text", "image", "video", "audio")
    recordings = [plain(tones(seconds, seed=3)) for seconds in (0.7, 5.3)]
    items = [Item("a quick brown fox"), *(Item(audios=(one,)) for one in recordings)]
    ask = "\nSummarize the above {} in one word:"
    audio = [[], *([load_audio(one, MelConfig())] for one in recordings)]
    for item, heard, vector in zip(items, audio, embedder.encode(items), strict=True):
        kind = "audio" if heard else "text"
        wanted = hf_items.embed(checkpoint, text=item.text, sounds=heard, prompt=ask.format(kind))
        np.testing.assert_allclose(vector, wanted, atol=1e-4)


def test_an_image_has_sixteen_tokens(folder):
    embedder = Embedder(folder, mesh=meshes.make((1, 1, 1)), dtype="float32")
    image = encode(random_image(0, (56, 56)), "PNG")
    (encoded,) = embedder.processor.encode([Item(images=(image,))])
    assert len(encoded.media[0].places) == 16
    assert np.isfinite(embedder.encode([Item(images=(image,))])).all()


def test_another_tokenizer_is_refused(folder, tmp_path):
    other = tiny.write(tmp_path / "decoder", num_layers=1).folder
    (other / "generation_config.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks the control tokens"):
        omni_parts.assemble_omni(other, folder.parent / "model.bin", tmp_path)
