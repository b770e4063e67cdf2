"""A grid of generative budgets, and the arms that are compared at its largest one."""

from dataclasses import dataclass

from lco_jax.config.checks import require
from lco_jax.config.data import Source
from lco_jax.config.run import Soup, TrainConfig


@dataclass(frozen=True)
class FreshModel:
    """A small vision-language model with random weights, and a tokenizer learned from `texts`."""

    texts: tuple[Source, ...]
    """Pairs whose texts the tokenizer is learned from."""
    vocab_size: int = 4096
    num_layers: int = 4
    hidden_size: int = 128
    intermediate_size: int = 384
    num_heads: int = 4
    num_kv_heads: int = 2
    vision_layers: int = 2
    vision_size: int = 64
    vision_intermediate_size: int = 128


@dataclass(frozen=True)
class LinearProjection:
    """A square matrix behind the pooled states, which stay as they are; it starts as 1."""


@dataclass(frozen=True)
class Arm:
    """One way to refine the model that the largest budget of the first seed leaves."""

    name: str
    refine: TrainConfig | Soup
    projection: LinearProjection | None = None
    """Train this with the objective, data and optimizer of `refine` instead of the model."""


@dataclass(frozen=True)
class Ability:
    """What is measured of a model before and after refinement: one panel of the scaling law."""

    name: str
    pairs: Source
    """Held-out pairs: anchors find their positives among all, and the other way round."""
    exchanges: Source
    """Held-out exchanges whose responses, given their prompts, measure generation."""
    alone: Source | None = None
    """The same responses without prompts, for the information that a prompt gives."""


@dataclass(frozen=True)
class ScalingGrid:
    """Generative stages of several lengths, each followed by the same contrastive stage.

    Each cell starts from the model of its seed.
    """

    model: FreshModel | str
    """Random weights, other ones for every seed, or a hub folder that all cells start from."""
    generate: TrainConfig
    """`model.path`, `num_steps` and `seed` are those of the cell."""
    refine: TrainConfig
    """`model.path` and `seed` are those of the cell."""
    budgets: tuple[int, ...]
    """Generative steps; 0 leaves the stage out."""
    seeds: tuple[int, ...]
    abilities: tuple[Ability, ...]
    """The pairs of the first are triplets, the population of the bound."""
    prior_std: float = 0.02
    """Width of the Gaussians around the weights before and after refinement, for the bound; fixed
    before any run, as the theorem demands."""
    arms: tuple[Arm, ...] = ()

    def __post_init__(self):
        require(
            len(set(self.budgets)) == len(self.budgets) >= 2 and min(self.budgets) >= 0,
            f"budgets={self.budgets} must be at least two different numbers of steps",
        )
        require(
            len(set(self.seeds)) == len(self.seeds) >= 1,
            f"seeds={self.seeds} must be at least one, all different",
        )
        require(
            bool(self.abilities) and self.abilities[0].alone is not None,
            "abilities must begin with one that has `alone`, which the bound takes its terms from",
        )
        require(self.prior_std > 0, f"prior_std={self.prior_std} must be positive")
        names = [arm.name for arm in self.arms]
        require(len(set(names)) == len(names), f"arms {names} must have different names")
        for index, arm in enumerate(self.arms):
            if isinstance(arm.refine, Soup):
                missing = sorted(set(arm.refine.of) - set(names[:index]))
                require(
                    not missing,
                    f"arm {arm.name!r} is a soup of {arm.refine.of}; it needs arms that stand "
                    f"before it, and {missing} do not",
                )
