"""What datasets that are known by name have in common, whoever they are by."""

from typing import ClassVar

import tensorflow_datasets as tfds

from lco_jax.config import Columns


class ArrayRecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the datasets that are known by name: TFDS builders that need no TensorFlow.

    A package makes one known by an entry point of the group `lco_jax.datasets`, in its
    `pyproject.toml`: `NAME = "MODULE:CLASS"`. What the constructor takes besides these two
    arguments needs a default; `prepare` passes it on.

    Args:
        config_name: what the user wrote behind the name and a slash (empty: nothing).
        data_dir: where datasets are prepared.
    """

    VERSION = tfds.core.Version("1.0.0")
    # TFDS looks for checksums of downloads beside the code; without downloads there are none.
    url_infos: ClassVar[dict] = {}

    columns: Columns
    """What is what in the records."""
    is_shipped: ClassVar[bool] = False
    """Made in no time from files that are there already, so it is prepared on first use."""
    hub_id: ClassVar[str | None] = None
    """What it is called on the hub."""
    language: ClassVar[str | None] = None
    """Of its texts, where the config names none."""

    def __init__(self, *, config_name: str, data_dir: str):
        config = tfds.core.BuilderConfig(name=config_name) if config_name else None
        super().__init__(config=config, data_dir=data_dir, file_format="array_record")

    def how_to_prepare(self, name: str) -> str:
        """What to do first, where the dataset is not prepared.

        Args:
            name: what the user asked for, with the config.
        """
        command = f"python launch/prepare_data.py {name.replace('/', ' --config ')}"
        return f"run `{command} --source-dir FOLDER` first (without --source-dir it is downloaded)"


def refuse_config(name: str, config_name: str) -> None:
    """Of datasets without a choice of configs.

    Raises:
        ValueError: one was asked for.
    """
    if config_name:
        raise ValueError(f"{name} has no config {config_name!r}; use the name {name!r}")
