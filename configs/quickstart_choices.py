"""The quickstart where choices are made: trained on `fit` and measured on `dev`, both of the
training data, so that nothing is chosen on the data that it is measured on in the end.
"""

from lco_jax.config import Stages
from lco_jax.lab.held_apart import for_choices
from lco_jax.lab.recipes import quickstart


def get_config() -> Stages:
    return for_choices(quickstart())
