"""The contrastive training step of representax on a Qwen2.5-Omni, for `benchmarks.omni_step`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from representax.integrations.huggingface import load_hf_config, load_safetensor_subset
from representax.models import apply_lora, lora_parameter_filter
from representax.models.qwen2_5_omni.checkpoint import (
    Qwen2_5OmniCheckpointAdapter,
    qwen2_5_omni_weight_names,
)
from representax.models.qwen2_5_omni.config import Qwen2_5OmniConfig
from representax.models.qwen2_5_omni.model import Qwen2_5OmniBatch
from representax.models.qwen2_5_omni.processing import batch_from_processor_output
from representax.tasks import build_task
from representax.tasks.retrieval import MNRConfig, RetrievalConfig, retrieval_batch
from representax.train import build_train_step, init_train_state
from transformers import AutoTokenizer

from benchmarks.contrastive_step import Triplet
from benchmarks.peer_library import Rematerialization, static_size
from benchmarks.report import Work, jax_product
from lco_jax.config import TrainConfig


class RetrievalStep:
    """Multiple-negatives ranking: anchors in one batch, positives and negatives in another, each
    right-padded to its longest, or a little more, so that few programs are compiled.

    Args:
        prompt: follows every text.
    """

    def __init__(self, config: TrainConfig, prompt: str, rematerialization: Rematerialization):
        folder, lora = Path(config.model.path), config.model.trainable
        # The checkpoint names no token for padding, and its vocabulary is shorter than the default.
        self._config = Qwen2_5OmniConfig.from_hf_config(
            {**load_hf_config(folder), "pad_token_id": 0}
        )
        weights = load_safetensor_subset(
            folder, qwen2_5_omni_weight_names(self._config), dtype="float32"
        )
        adapter = Qwen2_5OmniCheckpointAdapter(rematerialization=rematerialization)
        model = adapter.from_state_dict(
            self._config, weights, parameter_dtype="float32", compute_dtype="float32"
        )
        model = apply_lora(
            model,
            rank=lora.rank,
            alpha=lora.alpha,
            key=jax.random.key(config.seed),
            target_pattern=r"^\.text\.layers",
        )
        trainable = lora_parameter_filter(model)
        optimizer = optax.adamw(
            config.optimizer.peak_lr, weight_decay=config.optimizer.weight_decay
        )
        task = build_task(RetrievalConfig(), MNRConfig(scale=1 / config.objective.temperature))
        self._state = init_train_state(model, optimizer, trainable_filter=trainable)
        self._step = build_train_step(
            task,
            optimizer,
            max_grad_norm=config.optimizer.clip_norm,
            donate_state=True,
            trainable_filter=trainable,
        )
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._prompt = prompt

    def run(self, task: Sequence[Triplet]) -> Work:
        """One optimizer step on a batch of triplets."""
        anchors, positives, negatives = zip(*task, strict=True)
        query, document = self._tokenize(anchors), self._tokenize(positives + negatives)
        size = len(task)
        batch = retrieval_batch(
            query=query,
            document=document,
            positive_mask=np.eye(size, 2 * size, dtype=np.bool_),
        )
        result = self._step(self._state, batch)
        self._state = jax.block_until_ready(result.state)
        masks = query.attention_mask, document.attention_mask
        return Work(
            real_tokens=sum(int(mask.sum()) for mask in masks),
            computed_tokens=sum(mask.size for mask in masks),
            loss=float(result.metrics.loss),
        )

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product in float32."""
        return jax_product(shape, "float32")

    def _tokenize(self, texts: Sequence[str]) -> Qwen2_5OmniBatch:
        turns = [[{"role": "user", "content": text + self._prompt}] for text in texts]
        rendered = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        features = self._tokenizer(
            rendered,
            add_special_tokens=False,
            padding=True,
            padding_side="right",
            return_tensors="np",
        )
        return batch_from_processor_output(
            features,
            self._config,
            sequence_length_buckets=(static_size(features["input_ids"].shape[1]),),
            patch_count_buckets=(),
            audio_chunk_count_buckets=(),
            audio_token_count_buckets=(),
        )
