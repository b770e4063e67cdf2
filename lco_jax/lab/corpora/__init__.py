"""Datasets of the lab, known by name to `lco_jax.data.sources.datasets` (see `pyproject.toml`).

Each has a builder (`emoji.py`) and, where there is much to it, the making of its files or texts
beside it (`emoji_source.py`).
"""
