"""The torch programs that we are compared with; they use the public modules of their libraries."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import torch.nn.functional as F
import transformers
from sentence_transformers import SentenceTransformer
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from benchmarks.report import Work

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

Triplet = tuple[str, str, str]


def _multiply(shape: tuple[int, int, int], dtype: torch.dtype) -> Callable[[], None]:
    rows, inner, columns = shape
    x, y = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    return lambda: torch.mm(x, y)


class SentenceEmbedding:
    """`SentenceTransformer.encode`, which sorts texts by length and pads each batch."""

    def __init__(self, folder: Path, dtype: str):
        self._dtype = getattr(torch, dtype)
        options = {"dtype": self._dtype}
        self._model = SentenceTransformer(str(folder), device="cpu", model_kwargs=options)
        self._computed = self._real = 0
        self._model[0].register_forward_pre_hook(self._count)

    def run(self, task: tuple[Sequence[str], int]) -> Work:
        """Embed texts in batches of the given size."""
        texts, batch_size = task
        self._computed = self._real = 0
        vectors = self._model.encode(list(texts), batch_size=batch_size)
        return Work(self._real, self._computed, vectors=vectors.astype(np.float32))

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product in the dtype of the model."""
        return _multiply(shape, self._dtype)

    def _count(self, module: torch.nn.Module, args: tuple[dict[str, torch.Tensor]]) -> None:
        mask = args[0]["attention_mask"]
        self._computed += mask.numel()
        self._real += int(mask.sum())


@dataclass(frozen=True)
class StepSettings:
    """What all training steps have in common."""

    folder: Path
    num_layers: int
    rank: int
    alpha: float
    dropout: float
    temperature: float
    learning_rate: float
    clip_norm: float
    prompt: str
    preamble: tuple[int, ...]
    """Tokens that begin every item."""


class _TrainingStep:
    """Decoder with low-rank factors, contrastive loss, AdamW; subclasses encode."""

    def __init__(self, settings: StepSettings):
        torch.manual_seed(0)
        self._settings = settings
        self._tokenizer = AutoTokenizer.from_pretrained(settings.folder)
        model = AutoModelForCausalLM.from_pretrained(
            settings.folder,
            num_hidden_layers=settings.num_layers,
            dtype=torch.float32,
            attn_implementation="sdpa",
        )
        lora = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=_TARGETS,
        )
        self._model = peft.get_peft_model(model, lora).train()
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=0.0
        )

    def run(self, task: Sequence[Triplet]) -> Work:
        """One optimizer step on a batch of triplets."""
        self._real = self._computed = 0
        self._optimizer.zero_grad()
        roles = F.normalize(self._encode(task), dim=-1)
        anchor, candidates = roles[0], roles[1:].flatten(0, 1)
        logits = anchor @ candidates.T / self._settings.temperature
        loss = F.cross_entropy(logits, torch.arange(len(task)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.clip_norm)
        self._optimizer.step()
        return Work(self._real, self._computed, loss=loss.item())

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product in float32."""
        return _multiply(shape, torch.float32)

    def _encode(self, task: Sequence[Triplet]) -> torch.Tensor:
        """States of the last tokens: role, example, width."""
        raise NotImplementedError

    def _render(self, texts: Sequence[str]) -> list[str]:
        turns = [[{"role": "user", "content": text + self._settings.prompt}] for text in texts]
        return self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )

    def _tokenize(self, texts: Sequence[str], **options: Any) -> Any:
        return self._tokenizer(self._render(texts), add_special_tokens=False, **options)


class OfficialStep(_TrainingStep):
    """Three forwards, each padded to its longest, with logits and all hidden states.

    Source: LCO-Emb released trainers.
    """

    def __init__(self, settings: StepSettings, checkpointing: bool):
        super().__init__(settings)
        if checkpointing:
            self._model.gradient_checkpointing_enable({"use_reentrant": False})

    def _encode(self, task: Sequence[Triplet]) -> torch.Tensor:
        roles = []
        for texts in zip(*task, strict=True):
            inputs = self._tokenize(texts, padding=True, padding_side="left", return_tensors="pt")
            self._real += int(inputs["attention_mask"].sum())
            self._computed += inputs["input_ids"].numel()
            out = self._model(**inputs, output_hidden_states=True, use_cache=False)
            roles.append(out.hidden_states[-1][:, -1])
        return torch.stack(roles)


class GroupedStep(_TrainingStep):
    """All items at once through the bare decoder, in groups of about equal length.

    Padding is on the right, where a causal decoder does not see it and attention needs no mask.

    Args:
        group_size: items of one forward pass.
    """

    def __init__(self, settings: StepSettings, group_size: int):
        super().__init__(settings)
        self._group_size = group_size
        self._decoder = self._model.get_base_model().model

    def _encode(self, task: Sequence[Triplet]) -> torch.Tensor:
        texts = [text for role in zip(*task, strict=True) for text in role]
        ids = self._tokenize(texts)["input_ids"]
        self._real += sum(map(len, ids))
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        starts = range(0, len(order), self._group_size)
        groups = [order[start : start + self._group_size] for start in starts]
        pooled = torch.cat([self._forward([ids[index] for index in group]) for group in groups])
        return pooled[torch.tensor(order).argsort()].reshape(3, len(task), -1)

    def _forward(self, ids: list[list[int]], cache: DynamicCache | None = None) -> torch.Tensor:
        tokens = pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
        self._computed += tokens.numel()
        out = self._decoder(input_ids=tokens, past_key_values=cache, use_cache=cache is not None)
        return out.last_hidden_state[range(len(ids)), [len(row) - 1 for row in ids]]


class SharedPreambleStep(GroupedStep):
    """As `GroupedStep`, and the tokens that begin every item run once, as in lco_jax."""

    def _encode(self, task: Sequence[Triplet]) -> torch.Tensor:
        preamble = torch.tensor([self._settings.preamble])
        self._computed += preamble.numel()
        shared = self._decoder(input_ids=preamble, use_cache=True).past_key_values
        self._shared = [(layer.keys, layer.values) for layer in shared.layers]
        return super()._encode(task)

    def _forward(self, ids: list[list[int]], cache: DynamicCache | None = None) -> torch.Tensor:
        expanded = [
            (keys.expand(len(ids), -1, -1, -1), values.expand(len(ids), -1, -1, -1))
            for keys, values in self._shared
        ]
        rest = [row[len(self._settings.preamble) :] for row in ids]
        return super()._forward(rest, DynamicCache(expanded))
