"""Pages of text as pictures: laid out and shaped by WeasyPrint, drawn by PDFium."""

import hashlib
import html
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from lco_jax.data.media.images import encode_image
from lco_jax.lab.corpora.libreoffice_source import Block

SIDE_PX = 672
"""Of the square picture: 576 tokens of 28 x 28 pixels."""

_CSS_PX = 320
"""Side in units of the style sheet, of which a line of text takes 19."""
_PDF_POINTS = 0.75
"""Of a unit of the style sheet."""
_INVISIBLE = str.maketrans("", "", "\u200b\u200c\u200d\ufeff")
"""Marks where lines may break; nobody reads them off a picture."""
_TAGS = {"title": "h1", "heading": "h2", "text": "p", "item": "li", "box": "aside"}
_STYLE = f"""
@page {{ size: {_CSS_PX}px; margin: 10px 12px; background: white }}
body {{ font: 14px/1.35 latin, khmer; margin: 0; color: #111; overflow-wrap: anywhere }}
h1, h2, p, li, aside {{ margin: 0 0 6px; break-inside: avoid }}
h1 {{ font-size: 20px }}
h2 {{ font-size: 16px }}
li {{ margin-left: 16px }}
aside {{ border-left: 4px solid #888; padding-left: 8px }}
"""

STYLE = hashlib.sha256(f"{_STYLE}{SIDE_PX}".encode()).hexdigest()[:8]
"""Changes with the look of the pictures."""


class PagePainter:
    """Sets blocks of text on a page and draws it.

    Args:
        fonts: regular and bold Latin, regular and bold Khmer.

    Raises:
        ModuleNotFoundError, OSError: WeasyPrint, PDFium or the library Pango is absent.
    """

    def __init__(self, fonts: Sequence[Path]):
        try:
            import pypdfium2
            import weasyprint
        except (ImportError, OSError) as error:  # WeasyPrint loads Pango, a system library
            raise type(error)(
                f"{error}; pages need the extra `documents` (pip install -e '.[documents]') and "
                "Pango (on Debian: apt-get install libpangoft2-1.0-0)"
            ) from error
        # Both report what they leave out of the PDF, e.g. tables of fonts.
        for name in ("fontTools", "weasyprint"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._weasyprint, self._pdfium, self._fonts = weasyprint, pypdfium2, list(fonts)

    @cached_property
    def _setting(self) -> tuple[object, object]:
        """Fonts and style sheet, read once."""
        configuration = self._weasyprint.text.fonts.FontConfiguration()
        faces = "".join(
            f"@font-face {{ font-family: {family}; src: url({font.resolve().as_uri()}); "
            f"font-weight: {weight} }}\n"
            for font, (family, weight) in zip(
                self._fonts,
                [(family, weight) for family in ("latin", "khmer") for weight in (400, 700)],
                strict=True,
            )
        )
        sheet = self._weasyprint.CSS(string=faces + _STYLE, font_config=configuration)
        return configuration, sheet

    def paint(self, blocks: Sequence[Block], language: str) -> tuple[bytes, str]:
        """The picture (PNG, grey) of as many of the blocks as fit, and the text on it.

        Raises:
            ValueError: not even the first block fits.
        """
        configuration, sheet = self._setting
        body = "".join(
            f'<{_TAGS[block.kind]} id="{index}">{html.escape(block.text)}</{_TAGS[block.kind]}>'
            for index, block in enumerate(blocks)
        )
        source = f'<html lang="{language}"><body>{body}</body></html>'
        document = self._weasyprint.HTML(string=source).render(
            stylesheets=[sheet], font_config=configuration
        )
        # Blocks are not divided, so those that begin on the first page lie there as a whole.
        first = document.pages[0]
        shown = [block for index, block in enumerate(blocks) if str(index) in first.anchors]
        if not shown or first.width != _CSS_PX:
            raise ValueError(f"{blocks[0].text[:60]!r} is too long for a page")
        pdf = self._pdfium.PdfDocument(document.copy([first]).write_pdf(full_fonts=True))
        scale = SIDE_PX / (_CSS_PX * _PDF_POINTS)
        picture = pdf[0].render(scale=scale, grayscale=True).to_pil()
        return encode_image(picture), "\n".join(block.text.translate(_INVISIBLE) for block in shown)
