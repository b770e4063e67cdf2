"""The embedding model as its users know it: the names are those of sentence-transformers."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, Shaped

from lco_jax.config import ControlTokensRead, MediaConfig, Memory, MeshConfig
from lco_jax.data.records import Item
from lco_jax.embed.arguments import (
    CONSTRUCTOR,
    MISSING,
    check_call,
    check_positive,
    dtype_of,
    given,
    given_inputs,
    import_torch,
    model_name,
    refuse,
)
from lco_jax.embed.encoder import Encoder, Errors, encode_in_blocks, progress_bar
from lco_jax.embed.face import Face
from lco_jax.embed.identity import identity_of, of_whole_vectors, revision_of
from lco_jax.embed.input_errors import numbered
from lco_jax.embed.inputs import Input as Input
from lco_jax.embed.inputs import InputReader
from lco_jax.embed.one_or_many import as_sequence, is_single
from lco_jax.embed.open import open_model
from lco_jax.embed.placement import check_placed, choose_mesh
from lco_jax.embed.precision import check_precision, quantize
from lco_jax.embed.prompts import PromptedPiece, choose_prompt, saved_settings
from lco_jax.embed.upstairs import Upstairs
from lco_jax.embed.vector_cache import VectorCache
from lco_jax.metrics.similarity import unit
from lco_jax.weights.access import HubAccess

if TYPE_CHECKING:
    import torch

_MEMORY = Memory(
    row_tokens=(*Memory().row_tokens, 32_768), frame_rows=(*Memory().frame_rows, 81_920)
)
"""Rows also for the largest images that public checkpoints allow, of 16,384 tokens."""


class Embedder(Face, Upstairs):
    """Unit vectors of texts, images, audio and video.

        embedder = Embedder("runs/quickstart/refine")
        vectors = embedder.encode(["a small cat", "a large dog"])

    Queries and documents are encoded alike unless there are prompts for them: the recipe has one
    turn for both. `docs/sentence_transformers.md` lists every name and argument of
    sentence-transformers, and what it is here.

    Args:
        model: hub folder, hub id or run folder (also as `model_name_or_path`).
        checkpoint: step of a run folder (None: the best evaluated one, else the last).
        profile: prompt recipe (None: that of the run or export, else `lco`).
        dtype: of weights and activations (None: as the run was trained, else bfloat16 on
            accelerators and float32 on CPU); `model_kwargs={"dtype": ...}` is the same.
        truncate_dim: keep the first dimensions of every vector and normalise again.
        tokens_per_batch: packed tokens that a device computes at a time.
        patches_per_batch: image patches that a device computes at a time.
        media: sizes and rates of images and videos (None: those of the run or export; if the
            profile `mteb` is asked for, those of mteb's wrapper).
        control_tokens: `tokens` reads `<|im_end|>` and the like in texts as transformers does.
        device: `cpu`, `gpu`, `cuda:1`, `tpu` and so on, in place of a mesh (None: all devices).
        cache: folder in which vectors are kept by the content of their items.
        prompts: texts by name that `encode` puts before those of its inputs, in addition to what a
            folder of sentence-transformers has.
        default_prompt_name: the prompt of all calls that name none.
        similarity_fn_name: what `similarity` computes (None: `cosine`, or what the folder says).
        revision: branch, tag or commit of a hub id.
        token: for the hub, as in `huggingface_hub`.
        cache_folder: of the hub (None: what its own variables say).
        local_files_only: never ask the hub.
        trust_remote_code: without effect; no code of a model is ever run.

    Raises:
        FileNotFoundError: no such model.
        ValueError: the folder does not hold a model of a supported family, or an argument asks for
            what is not here; the message names it.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        checkpoint: int | None = None,
        profile: str | None = None,
        max_text_tokens: int | None = None,
        control_tokens: ControlTokensRead | None = None,
        dtype: str | None = None,
        truncate_dim: int | None = None,
        tokens_per_batch: int = 4096,
        patches_per_batch: int = 8192,
        media: MediaConfig | None = None,
        mesh: MeshConfig | jax.sharding.Mesh | None = None,
        device: Any = None,
        cache: str | Path | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_folder: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ):
        model = model_name(model, others)
        refuse(Embedder, others, CONSTRUCTOR)
        if cache is not None and jax.process_count() > 1:
            raise ValueError(f"cache={str(cache)!r} is for one process; leave it out")
        check_positive("truncate_dim", truncate_dim)
        dtype = dtype or dtype_of(model_kwargs)
        self._mesh = choose_mesh(mesh, device)
        access = HubAccess(token, cache_folder, local_files_only)
        with jax.set_mesh(self._mesh):
            opened = open_model(
                model,
                checkpoint=checkpoint,
                profile=profile,
                max_text_tokens=max_text_tokens,
                control_tokens=control_tokens,
                media=media,
                dtype=dtype,
                revision=revision,
                access=access,
            )
        self.config, self.processor = opened.config, opened.processor
        self._model, self._contents = model, opened.contents
        self._is_fetched_otherwise = opened.step is None and bool(revision or access.options())
        self._step, self._dtype, self._base_folder = opened.step, opened.dtype, opened.base_folder
        saved = saved_settings(opened.base_folder) if opened.step is None else {}
        self.prompts: dict[str, str] = {"query": "", "document": ""}
        self.prompts |= self.processor.prompter.prompts
        self.prompts |= {name: text or "" for name, text in (saved.get("prompts") or {}).items()}
        self.prompts |= dict(prompts or {})
        self.default_prompt_name = default_prompt_name or saved.get("default_prompt_name")
        self._prompt(None, None)  # refuses an unknown name
        self.similarity_fn_name = similarity_fn_name or saved.get("similarity_fn_name")
        self.truncate_dim = saved.get("truncate_dim") if truncate_dim is None else truncate_dim
        self._check_width(self.truncate_dim)
        self._own_settings = set(
            given(profile=profile, max_text_tokens=max_text_tokens, media=media)
        )
        self._notices: set[str] = set()
        self._encoder = Encoder(
            opened.graph,
            opened.params,
            opened.processor,
            self._mesh,
            memory=_MEMORY,
            make_reader=self._make_reader(opened.processor.media),
            tokens_per_batch=tokens_per_batch,
            patches_per_batch=patches_per_batch,
        )
        self._cache_folder = cache
        self._open_cache()

    @property
    def identity(self) -> tuple:
        """What vectors depend on besides their items: see `identity_of`."""
        settings = (self._dtype, self.truncate_dim, self.processor.describe())
        return identity_of(self._contents, *settings, self._prompt(None, None))

    @property
    def source(self) -> str:
        """Where the model was opened: a whole path, or the name on the hub."""
        path = Path(self._model)
        return str(path.resolve()) if path.exists() else str(self._model)

    def encode(
        self,
        inputs: Input | Sequence[Input] = MISSING,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        errors: Errors | None = None,
        **others: Any,
    ) -> "Shaped[np.ndarray, '... E'] | torch.Tensor | list[torch.Tensor]":
        """Unit vectors in input order; one vector for a single input.

        Unlike in sentence-transformers, truncated vectors are unit vectors again.

        Args:
            inputs: texts, media, or both (see `docs/inputs.md`).
            prompt_name: key in `prompts`.
            prompt: stands before the text of each input, and is the text of those without.
            batch_size: at most so many inputs a device batch (None: as many as fit). Vectors do not
                depend on it.
            show_progress_bar: on the error stream (None: no).
            output_value: `sentence_embedding`.
            precision: float32, float16, int8, uint8, binary or ubinary (see `quantize`).
            convert_to_numpy: False: a list of tensors of torch.
            convert_to_tensor: one tensor of torch.
            device: where the model is; it is not moved.
            normalize_embeddings: without effect: vectors are unit vectors.
            truncate_dim: keep the first dimensions and normalise again.
            errors: where to note inputs whose text or media cannot be used, by index; their
                vectors are zero (None: the first error is raised).

        Raises:
            ValueError: an input is empty, too long, not an item, or has media that cannot be used;
                or an argument asks for what is not here.
            ImportError: tensors are asked for, and torch is not installed.
        """
        if inputs is MISSING:
            inputs = given_inputs(others)
        if "task_metadata" in others:
            return self._encode_for_mteb(inputs, precision or "float32", others)
        refused = others | {"pool": pool, "chunk_size": chunk_size}
        check_call(self.encode, refused, output_value, batch_size)
        check_precision(precision := precision or "float32")
        self._check_width(truncate_dim)
        check_placed(device, self._mesh)
        torch = import_torch() if convert_to_tensor or not convert_to_numpy else None
        items, single = self._read(inputs, self._prompt(prompt, prompt_name))
        found: Errors | None = None if errors is None else {}
        with progress_bar(len(items), bool(show_progress_bar)) as bar, numbered():
            advance = lambda count: bar.advance(bar.task_ids[0], count)  # noqa: E731
            encode = self._encoder.encode
            if self._cache is not None:
                encode = functools.partial(self._cache.encode, encode)
            pooled = encode_in_blocks(encode, items, batch_size, self.full_width, advance, found)
        vectors = unit(pooled[:, : truncate_dim or self.width])
        if errors is not None:
            errors |= found
        vectors = quantize(vectors, precision, without=list(found or ()))
        if torch is not None:
            vectors = torch.from_numpy(vectors)
            vectors = vectors if convert_to_tensor else list(vectors)
        return vectors[0] if single else vectors

    def encode_pieces(
        self, pieces: Iterable[Sequence[Item | ValueError]]
    ) -> Iterator[tuple[Float[np.ndarray, "N E"], Errors]]:
        """The unit vectors of each piece of a long job, and what is wrong with items that have
        none. An error in the place of an item stands for one that cannot be read.

        The devices work on one piece while the next is read. Several processes are given the same
        pieces, of which each looks at its own items only.
        """
        if self._cache is None:
            if prompt := self._prompt(None, None):
                pieces = (PromptedPiece(piece, prompt) for piece in pieces)
            for pooled, errors in self._encoder.encode_pieces(pieces):
                yield unit(pooled[:, : self.width]), errors
            return
        for piece in pieces:
            items = list(piece)
            errors = {i: item for i, item in enumerate(items) if isinstance(item, ValueError)}
            good = [i for i in range(len(items)) if i not in errors]
            vectors, found = np.zeros((len(items), self.width), np.float32), {}
            vectors[good] = self.encode([items[i] for i in good], errors=found)
            yield vectors, errors | {good[i]: error for i, error in found.items()}

    @property
    def revision(self) -> str:
        """A hash of `identity`."""
        return revision_of(self.identity)

    def _open_cache(self) -> None:
        self._cache = None
        if self._cache_folder is not None:
            revision = revision_of(of_whole_vectors(self.identity))
            self._cache = VectorCache(self._cache_folder, revision, self.full_width)

    def _read(self, inputs: Any, prompt: str | None) -> tuple[list[Item | ValueError], bool]:
        """The items of inputs, and whether they are one input."""
        items = InputReader(self._notices).try_items(as_sequence(inputs))
        return list(PromptedPiece(items, prompt)), is_single(inputs)

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        """The prompt that a call asks for, or the default one."""
        return choose_prompt(self.prompts, self.default_prompt_name, prompt, name)
