"""The scaling law in a small lab: a randomly initialised decoder and vision tower.

Generative stages of four lengths read WordNet (definitions, and definitions after an example
sentence) and name emoji. Each is followed by the same text-only contrastive stage on WordNet.
About twenty minutes on one core.
"""

from lco_jax.config import (
    CheckpointConfig,
    Contrastive,
    DataConfig,
    Full,
    Generative,
    LoggingConfig,
    Lora,
    MediaConfig,
    ModelRef,
    OptimizerConfig,
    Soup,
    TfdsSource,
    Towers,
    TrainConfig,
)
from lco_jax.lab.grid_config import Ability, Arm, FreshModel, LinearProjection, ScalingGrid

_ASK = "What does the word mean?"
_MEDIA = MediaConfig(image_min_pixels=56 * 56, image_max_pixels=56 * 56)
_LOGGING = LoggingConfig(progress=False, tensorboard=False, report=False)
_CHECKPOINT = CheckpointConfig(every_steps=500, keep_last=1)
_HERE = "set by the grid"


def get_grid() -> ScalingGrid:
    lora = Lora(rank=16, alpha=32, dropout=0.05)
    return ScalingGrid(
        model=FreshModel(texts=(TfdsSource("wordnet"), TfdsSource("emoji"))),
        generate=_generate(),
        refine=_refine(lora),
        budgets=(0, 20, 80, 320),
        seeds=(0, 1),
        abilities=(
            Ability(
                "text",
                pairs=TfdsSource("wordnet", split="test"),
                exchanges=TfdsSource("wordnet", split="test", prompt=_ASK),
                alone=TfdsSource("wordnet", split="test", prompt=None),
            ),
            Ability(
                "image",
                pairs=TfdsSource("emoji", split="test"),
                exchanges=TfdsSource("emoji", split="test"),
            ),
        ),
        arms=(
            Arm("lora", _refine(lora)),
            Arm("lora other seed", _refine(lora, seed=1)),
            Arm("soup", Soup(("lora", "lora other seed"))),
            Arm("full", _refine(Full(), peak_lr=1e-3)),
            Arm("linear projection", _refine(lora), projection=LinearProjection()),
            Arm("clip-style", _refine(lora, clip=True)),
            *(
                Arm(
                    f"rank {rank} alpha {alpha:g}",
                    _refine(Lora(rank=rank, alpha=alpha, dropout=0.05)),
                )
                for rank in (4, 16, 64)
                for alpha in (rank / 4, 2.0 * rank)
                if (rank, alpha) != (lora.rank, lora.alpha)
            ),
        ),
    )


def _generate() -> TrainConfig:
    return TrainConfig(
        model=ModelRef(_HERE, trainable=Towers(decoder=Full()), dtype="float32"),
        data=DataConfig(
            sources=(
                TfdsSource("wordnet", prompt=_ASK, weight=2.0),
                TfdsSource("wordnet", prompt=None, weight=1.0),
                TfdsSource("emoji", weight=1.0),
            ),
            batch_size=32,
            media=_MEDIA,
        ),
        objective=Generative(max_response_tokens=64),
        optimizer=OptimizerConfig(peak_lr=2e-3, warmup_steps=20, weight_decay=0.01),
        checkpoint=_CHECKPOINT,
        logging=_LOGGING,
    )


def _refine(trainable, *, peak_lr: float = 2e-3, seed: int = 0, clip: bool = False) -> TrainConfig:
    """The contrastive stage: text only, or (`clip`) images and their names in both directions."""
    sources = (TfdsSource("emoji"),) if clip else (TfdsSource("wordnet"),)
    return TrainConfig(
        model=ModelRef(
            _HERE, trainable=trainable, dtype="float32", towers=("vision",) if clip else ()
        ),
        data=DataConfig(
            sources=sources, batch_size=32, num_negatives=0 if clip else 1, media=_MEDIA
        ),
        objective=Contrastive(symmetric=clip),
        optimizer=OptimizerConfig(peak_lr=peak_lr, warmup_steps=10),
        num_steps=60,
        seed=seed,
        checkpoint=_CHECKPOINT,
        logging=_LOGGING,
    )
