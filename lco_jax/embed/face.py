"""What an embedder has under the names of sentence-transformers, beside `encode`."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, Int32

from lco_jax.data.encode.processor import Processor
from lco_jax.data.encode.template import load_tokenizer
from lco_jax.embed.arguments import ABSENT, MISSING, check_positive
from lco_jax.embed.input_errors import of_field
from lco_jax.embed.one_or_many import is_single
from lco_jax.embed.prompts import choose_prompt
from lco_jax.metrics.similarity import PAIRWISE, SIMILARITIES, check_widths
from lco_jax.models.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_ONE_PROCESS = (
    "pools of processes are for torch; one process drives all devices of its mesh, and "
    "`launch/embed.py` runs on several hosts"
)


class Face:
    """Mixed into `Embedder`, which has the model and `encode`."""

    config: ModelConfig
    processor: Processor
    prompts: dict[str, str]
    truncate_dim: int | None
    _own_settings: set[str]

    def __getattr__(self, name: str) -> Any:
        hint = f": {ABSENT[name]}" if name in ABSENT else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    # -------------------------------------------------------------------------------- encoding

    def encode_query(
        self,
        inputs: Any = MISSING,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        """As `encode`, with the prompt `query`, which is empty unless the model has one."""
        if prompt is None and prompt_name is None and "query" in self.prompts:
            prompt_name = "query"
        return self.encode(inputs, prompt_name, prompt, *arguments, **options)

    def encode_document(
        self,
        inputs: Any = MISSING,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        """As `encode`, with the first prompt that there is of `document`, `passage`, `corpus`."""
        if prompt is None and prompt_name is None:
            prompt_name = next((name for name in _DOCUMENT_PROMPTS if name in self.prompts), None)
        return self.encode(inputs, prompt_name, prompt, *arguments, **options)

    def encode_multi_process(self, *arguments: Any, **options: Any) -> None:
        """Refused: see the message."""
        raise ValueError(f"encode_multi_process: {_ONE_PROCESS}; call encode")

    def start_multi_process_pool(self, *arguments: Any, **options: Any) -> None:
        """Refused: see the message."""
        raise ValueError(f"start_multi_process_pool: {_ONE_PROCESS}; call encode")

    def stop_multi_process_pool(self, *arguments: Any, **options: Any) -> None:
        """Refused: see the message."""
        raise ValueError(f"stop_multi_process_pool: {_ONE_PROCESS}; there is none to stop")

    def is_singular_input(self, inputs: Any) -> bool:
        """Whether `encode` returns one vector for these."""
        return is_single(inputs)

    def tokenize(
        self, texts: Any, prompt: str | None = None
    ) -> dict[str, Int32[np.ndarray, "N S"]]:
        """The whole turns of inputs as the decoder reads them: `input_ids`, and `attention_mask`
        with 0 where shorter ones are filled up, at their ends."""
        items, _ = self._read(texts, choose_prompt({}, None, prompt, None))
        head = self.processor.head
        for item in items:
            if isinstance(item, ValueError):
                raise item
        encoded = self.processor.try_encode(items)
        for index, found in enumerate(encoded):
            if isinstance(found, ValueError):
                raise of_field(found, f"input {index}")
        rows = [np.concatenate([head, found.tokens]) for found in encoded]
        longest = max(map(len, rows), default=0)
        ids = np.zeros((len(rows), longest), np.int32)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        return {"input_ids": ids, "attention_mask": mask}

    preprocess = tokenize

    # ------------------------------------------------------------------------------ similarity

    @property
    def similarity_fn_name(self) -> str:
        """`cosine` (of models that do not say otherwise), `dot`, `euclidean` or `manhattan`."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: Any) -> None:
        name = getattr(name, "value", name) or "cosine"
        if name not in SIMILARITIES:
            raise ValueError(f"similarity_fn_name={name!r} is none of {list(SIMILARITIES)}")
        self._similarity_fn_name = name

    def similarity(
        self, embeddings1: Float[Any, "N E"], embeddings2: Float[Any, "M E"]
    ) -> Float[Any, "N M"]:
        """The similarity of every pair, by `similarity_fn_name`; distances are negative. Tensors of
        torch give a tensor.

        Raises:
            ValueError: widths that differ.
        """
        return _compare(SIMILARITIES[self.similarity_fn_name], embeddings1, embeddings2)

    def similarity_pairwise(
        self, embeddings1: Float[Any, "N E"], embeddings2: Float[Any, "N E"]
    ) -> Float[Any, "N"]:
        """The similarity of the pairs in order.

        Raises:
            ValueError: widths or numbers of vectors that differ.
        """
        return _compare(PAIRWISE[self.similarity_fn_name], embeddings1, embeddings2)

    # -------------------------------------------------------------------------------- the model

    @property
    def width(self) -> int:
        """Width of what `encode` returns by default."""
        return self.truncate_dim or self.full_width

    @property
    def full_width(self) -> int:
        """Width of vectors that are not truncated."""
        return self.config.text.hidden_size

    def get_embedding_dimension(self) -> int:
        """Width of what `encode` returns by default."""
        return self.width

    get_sentence_embedding_dimension = get_embedding_dimension

    @contextlib.contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within, `encode` keeps so many dimensions."""
        self._check_width(truncate_dim)
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    def _check_width(self, width: int | None) -> None:
        check_positive("truncate_dim", width)
        if width is not None and width > self.full_width:
            raise ValueError(f"truncate_dim={width} is not in 1..{self.full_width}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """What items may have."""
        return ("text", *self.processor.kinds)

    def supports(self, modality: str | tuple[str, ...]) -> bool:
        """Whether `encode` takes items of this modality, or of these mixed. Chat messages
        (`message`) are taken by every model."""
        parts = (modality,) if isinstance(modality, str) else modality
        return all(part in (*self.modalities, "message") for part in parts)

    @property
    def max_seq_length(self) -> int:
        """Tokens to which a text is cut; the chat template and the prompt of the recipe come on
        top. Setting it makes another model of this one, as far as caches of vectors know."""
        return self.processor.prompter.max_text_tokens

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        if not isinstance(tokens, int | np.integer) or tokens < 1:
            raise ValueError(f"max_seq_length={tokens!r} must be a positive number of tokens")
        self.processor.prompter.max_text_tokens = int(tokens)
        self._own_settings.add("max_seq_length")
        self._open_cache()

    def get_max_seq_length(self) -> int:
        """As `max_seq_length`."""
        return self.max_seq_length

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The checkpoint's tokenizer, of transformers."""
        return load_tokenizer(self._base_folder)

    @property
    def device(self) -> jax.Device:
        """The first device of the mesh."""
        return self._mesh.devices.flat[0]

    @property
    def dtype(self) -> str:
        """Of the weights."""
        return self._dtype

    def get_backend(self) -> str:
        """`jax`."""
        return "jax"


def _compare(function: Any, a: Any, b: Any) -> Any:
    as_torch = any(type(side).__module__.partition(".")[0] == "torch" for side in (a, b))
    vectors = [np.atleast_2d(_on_host(side)) for side in (a, b)]
    check_widths(*vectors)
    counts = {len(side) for side in vectors}
    if function in PAIRWISE.values() and len(counts - {1}) > 1:
        raise ValueError(f"{len(vectors[0])} and {len(vectors[1])} vectors are no pairs")
    found = np.asarray(function(*vectors))
    if not as_torch:
        return found
    import torch

    return torch.from_numpy(found)


def _on_host(vectors: Any) -> np.ndarray:
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().cpu()
    elif isinstance(vectors, list | tuple):
        vectors = [_on_host(vector) for vector in vectors]
    array = np.asarray(vectors)
    return array if array.dtype.kind == "f" else array.astype(np.float32)
