"""Errors of several processes, for those who catch them without JAX."""


class LostProcessError(RuntimeError):
    """Another process of the run has died or cannot be reached."""
