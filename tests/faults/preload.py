"""What the processes of the fault runner have imported when they start; JAX is not started."""

from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer  # noqa: F401

import lco_jax.cli.embed
import lco_jax.cli.train
import lco_jax.weights.hub  # noqa: F401
