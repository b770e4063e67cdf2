"""The page of a search: what was asked, and what is nearest to it."""

from collections import Counter
from pathlib import Path

from lco_jax.data.records import Item
from lco_jax.report.media_uris import MediaUris
from lco_jax.report.page import render, write_whole
from lco_jax.search.find import Found
from lco_jax.search.names import printable

_MAX_ERRORS = 200
"""That a page lists."""
KIND_NAMES = {
    "text": "Texts",
    "image": "Images",
    "audio": "Recordings",
    "video": "Videos",
    "mixed": "Several media",
    "vector": "Vectors",
}


def write_search_page(found: Found, file: Path, max_media_bytes: int) -> None:
    """Write the page, which needs no other file.

    Args:
        max_media_bytes: of the audio and video files in it; thumbnails come on top.

    Raises:
        OSError: the file cannot be written.
    """
    media = MediaUris(max_media_bytes)

    def shown(item: Item) -> dict:
        return {"text": printable(item.text), "media": media.of(item)}

    queries: list[dict] = []
    for ranking in found.rankings:
        if not queries or queries[-1]["item"] is not ranking.query:
            queries.append({"item": ranking.query, **shown(ranking.query), "groups": []})
        matches = [
            {
                "rank": match.rank,
                "score": match.score,
                "name": printable(match.name),
                **shown(match.item),
            }
            for match in ranking.matches
        ]
        heading = KIND_NAMES[ranking.kind] if ranking.kind else ""
        queries[-1]["groups"].append({"heading": heading, "matches": matches})
    reasons = Counter(printable(text) for text in found.errors.values())
    page = render(
        "search.html.j2",
        corpus=printable(found.corpus),
        model=printable(found.model),
        num_items=found.num_items,
        queries=queries,
        warnings=[printable(text) for text in found.warnings],
        num_errors=len(found.errors),
        errors=reasons.most_common(_MAX_ERRORS),
        num_reasons=len(reasons),
    )
    write_whole(file, page)
