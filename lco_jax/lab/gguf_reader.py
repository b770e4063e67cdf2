"""GGUF files, read so that no length in them is believed, and what of their metadata is used."""

from pathlib import Path
from typing import Annotated, Any, Literal

import gguf
import numpy as np
from pydantic import Field, model_validator

from lco_jax.models.field_types import Layers, Positive, Size, TokenId
from lco_jax.models.json_files import Schema
from lco_jax.runtime.regular_files import read_regular

_MAX_ELEMENTS = 1 << 20
"""Of an array in the metadata; vocabularies have a quarter of it."""
_Token = Annotated[str, Field(max_length=10_000)]


class Reader(gguf.GGUFReader):
    """A file whose bytes are in memory: mapped ones end the process if the file becomes shorter.

    The methods are private to gguf, whose own return what there is of bytes beyond the end.
    """

    def __init__(self, path: Path):
        self._content = read_regular(path)
        super().__init__(path)

    def _get(
        self, offset: int, dtype: Any, count: int = 1, override_order: str | None = None
    ) -> np.ndarray:
        kind = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
        first, num_bytes = int(offset), int(count) * kind.itemsize
        if first + num_bytes > len(self._content):
            raise ValueError(
                f"{num_bytes} bytes from {first} on, and the file has {len(self._content)}"
            )
        return np.frombuffer(self._content, kind, int(count), first)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple:
        if raw_type == gguf.GGUFValueType.ARRAY:
            (length,) = self._get(orig_offs + 4, np.uint64)
            if length > _MAX_ELEMENTS:
                raise ValueError(f"an array of {length} elements at byte {orig_offs}")
        return super()._get_field_parts(orig_offs, raw_type)


class Fields(Schema):
    """The metadata of a llama decoder and its tokenizer."""

    architecture: Literal["llama"] = Field(alias="general.architecture")
    hidden_size: Size = Field(alias="llama.embedding_length")
    intermediate_size: Size = Field(alias="llama.feed_forward_length")
    num_layers: Layers = Field(alias="llama.block_count")
    num_heads: Size = Field(alias="llama.attention.head_count")
    num_kv_heads: Size = Field(alias="llama.attention.head_count_kv")
    head_dim: Size | None = Field(None, alias="llama.rope.dimension_count")
    context_length: Annotated[int, Field(ge=1)] = Field(alias="llama.context_length")
    rope_theta: Positive = Field(alias="llama.rope.freq_base")
    norm_eps: Positive = Field(alias="llama.attention.layer_norm_rms_epsilon")
    tokens: list[_Token] = Field(alias="tokenizer.ggml.tokens")
    token_types: list[int] = Field(alias="tokenizer.ggml.token_type")
    merges: list[_Token] = Field(alias="tokenizer.ggml.merges")
    tokenizer: Literal["gpt2"] = Field(alias="tokenizer.ggml.model")
    split: Literal["smollm"] = Field(alias="tokenizer.ggml.pre")
    bos: TokenId = Field(alias="tokenizer.ggml.bos_token_id")
    eos: TokenId = Field(alias="tokenizer.ggml.eos_token_id")
    pad: TokenId = Field(alias="tokenizer.ggml.padding_token_id")
    unk: TokenId = Field(alias="tokenizer.ggml.unknown_token_id")
    chat_template: Annotated[str, Field(max_length=1 << 20)] = Field(
        alias="tokenizer.chat_template"
    )

    @model_validator(mode="after")
    def _fits(self) -> "Fields":
        if len(set(self.tokens)) < len(self.tokens):
            raise ValueError("tokenizer.ggml.tokens has a token twice")
        if len(self.token_types) != len(self.tokens):
            raise ValueError(
                f"{len(self.token_types)} values of tokenizer.ggml.token_type for "
                f"{len(self.tokens)} tokens"
            )
        if max(self.bos, self.eos, self.pad, self.unk) >= len(self.tokens):
            raise ValueError(f"a special token has an id beyond the {len(self.tokens)} tokens")
        if any(merge.count(" ") != 1 for merge in self.merges):
            raise ValueError("tokenizer.ggml.merges must be pairs of tokens")
        return self
