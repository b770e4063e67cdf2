"""The work that plans measure a step by, against programs that do nothing else."""

import dataclasses
import math

import jax
import pytest

from lco_jax.config import Full, Generative, Lora, MediaConfig, Memory, Towers
from lco_jax.plan.abstract import abstract_run, model_sizes
from lco_jax.plan.useful_work import needed_flops, useful_work
from tests import meshes, runs, tiny
from tests.plan.products import matrix_flops

FROZEN = Towers(vision=0.0, audio=0.0, projectors=0.0, decoder=Full())
TOWER = Towers(vision=0.1, projectors=1.0, decoder=None)
ALL = Towers(vision=1.0, projectors=1.0, decoder=Full())


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Pages that compute nothing twice: in one block of tokens, the head does not either."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2_5_vl", tied=False, num_layers=3, vision=tiny.DEEP_TOWER)
    config = runs.make_config(folder, folder / "none.jsonl", objective=Generative(64))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, media=MediaConfig(image_max_pixels=112 * 112)),
        memory=Memory(remat="none", row_tokens=(128,), frame_rows=(128,), head_tokens=4096),
    )


@pytest.mark.parametrize("trainable", [FROZEN, TOWER, ALL], ids=["decoder", "tower", "all"])
def test_a_step_does_as_much_for_its_slots(config, trainable):
    model = dataclasses.replace(config.model, trainable=trainable)
    with jax.set_mesh(meshes.make((1, 1, 1))):
        run = abstract_run(dataclasses.replace(config, model=model))
        flops = matrix_flops(run)
    # Rows and preamble go through the decoder; the head is asked for all slots of the rows.
    tokens = run.slots + run.preamble.shape[0]
    expected = needed_flops(
        trainable,
        run.model,
        tokens=tokens,
        last_tokens=tokens,
        patches=math.prod(run.batch.media.vision.patches.shape[:3]),
        targets=run.slots,
    )
    assert flops == pytest.approx(expected, rel=0.02)


def test_the_assumed_batch_counts_the_backward_pass_of_a_trained_tower(config):
    def work(trainable):
        model = dataclasses.replace(config.model, trainable=trainable)
        changed = dataclasses.replace(config, model=model)
        return useful_work(changed, model_sizes(changed))

    frozen, trained = work(Lora(rank=4)), work(Towers(decoder=Lora(rank=4)))
    # 16 pages of 8 x 8 patches. Of the tower's products all but those with pixels have a gradient
    # of what they read, and all one of their weights.
    embed, layers, merger = 3 * 2 * 14 * 14 * 32, 4 * 32 * (4 * 32 + 3 * 24), 4 * 32 * 32 + 32 * 32
    assert trained.patches == frozen.patches == 16 * 64
    more = 2 * (layers + merger) + 2 * (embed + layers + merger)
    assert trained.flops - frozen.flops == 16 * 64 * more
    # Four products with the head for each of the responses' tokens; none of them is left out.
    decoder = 3 * 32 * (2 * 32 + 2 * 16 + 3 * 48)
    tokens, targets = frozen.tokens, 16 * 64
    tower = 2 * (embed + layers + merger) * 16 * 64
    assert frozen.flops == 4 * (decoder * tokens + 512 * 32 * targets) + tower
