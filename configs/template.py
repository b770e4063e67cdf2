"""A config to copy: training on data of your own, with what is most often changed.

    cp configs/template.py my_config.py
    python launch/train.py --config my_config.py --workdir runs/mine

Every value can also be given as an option (`--optimizer.peak-lr 2e-4`); `--help` lists all.
"""

from lco_jax.config import (
    Contrastive,
    DataConfig,
    Evaluation,
    Lora,
    MediaConfig,
    ModelRef,
    OptimizerConfig,
    TableSource,
    TrainConfig,
)

# Which column is what. Roles are anchor, positive, negative and id, or with a medium
# anchor.image_path, positive.audio_path and so on.
COLUMNS = (("query", "anchor"), ("answer", "positive"), ("wrong", "negative"))


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelRef(
            "Qwen/Qwen2.5-Omni-3B",  # a hub id, a hub folder, or the folder of an earlier run
            trainable=Lora(rank=64, alpha=16, dropout=0.05),  # alpha 128 with images and audio
            towers=(),  # texts alone; leave it out if there are media
        ),
        data=DataConfig(
            # CSV, parquet or JSON Lines; more sources are mixed by their weights.
            sources=(TableSource(("train.csv",), COLUMNS),),
            # All other positives and negatives of a batch are negatives: as many as memory allows.
            batch_size=64,
            # "skip" goes on past bad rows and damaged files, and counts them.
            media=MediaConfig(on_error="raise"),
        ),
        objective=Contrastive(temperature=0.03),
        optimizer=OptimizerConfig(peak_lr=4e-4, schedule="cosine", warmup_steps=0.1),
        num_epochs=1,
        # Leave it out if nothing is held out.
        evaluation=Evaluation(TableSource(("held_out.csv",), COLUMNS), every_steps=100),
    )
