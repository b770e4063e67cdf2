"""Whether two mixtures are the same sequence of examples; known without reading either."""

import re


def is_same_sequence(fingerprint: str, other: str) -> bool:
    """Whether two fingerprints are of the same examples in the same order; sources may be called
    otherwise, as the same file by another path is.
    """
    return _without_names(fingerprint) == _without_names(other)


def _without_names(fingerprint: str) -> list[str]:
    """Sizes and digests of the sources, then the rest; a name may be of any characters."""
    sources = re.findall(r"(?:^| )(\d+ [0-9a-f]{16})(?:; |$)", fingerprint)
    start = fingerprint.rfind("; order ")
    return [*sources, fingerprint[start:]] if sources else [fingerprint]
