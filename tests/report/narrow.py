"""Pages on a screen of 390 pixels, by the layout of weasyprint."""

import re

import pytest

WIDTH_PX = 390


def sideways(page: str) -> list[str]:
    """What lies beyond the right edge of such a screen, or is cut there: tag, words, and where it
    ends.

    Weasyprint knows no widths of screens in queries; those that hold on this one are put as
    holding always. An element that scrolls sideways by itself counts as well.
    """
    weasyprint = pytest.importorskip("weasyprint")
    page = re.sub(r"@media print", "@media none", page)
    page = re.sub(r"@media \(max-width: (\d+)px\)", _always, page)
    sheet = weasyprint.CSS(string=f"@page {{ size: {WIDTH_PX}px 5000px; margin: 0 }}")
    document = weasyprint.HTML(string=page).render(stylesheets=[sheet])
    found = []
    for part in document.pages:
        for box in part._page_box.descendants():
            width = getattr(box, "width", None)
            if not isinstance(width, int | float):
                continue
            right = box.position_x + width
            if right > WIDTH_PX + 0.5:
                found.append(
                    f"<{box.element_tag}> {getattr(box, 'text', '')!r} ends at {right:.0f}"
                )
    return found


def _always(query: re.Match) -> str:
    return "@media all" if int(query[1]) >= WIDTH_PX else "@media none"
