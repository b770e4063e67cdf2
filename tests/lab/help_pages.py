"""A made-up copy of LibreOffice's help: the folders and markup of Debian's packages, few pages."""

from pathlib import Path

import matplotlib

_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_WORDS = {
    "en-US": ("sheet", "print", "cell", "row", "value", "chart", "table", "border"),
    "id": ("lembar", "cetak", "sel", "baris", "nilai", "bagan", "tabel", "batas"),
    "km": ("សន្លឹក", "បោះពុម្ព", "ក្រឡា", "ជួរ", "តម្លៃ", "គំនូស", "តារាង", "ស៊ុម"),
    "vi": ("trang", "in", "ô", "hàng", "giá trị", "biểu đồ", "bảng", "viền"),
}
LANGUAGES = ("id", "vi", "km")
_PAGE = """<!DOCTYPE html><html><head><title>{title}</title></head><body>
<header><p id="par_top">menu</p></header>
<div id="DisplayArea"><h1 id="hd_1">{title}</h1>
{body}
<div class="embedded"><p class="embedded"><a>Another page</a></p></div>
</div></body></html>"""


def sentence(language: str, number: int) -> str:
    """Twelve words that depend on `number`."""
    words = _WORDS[language]
    return " ".join(words[(number + index * index) % len(words)] for index in range(12))


def write_help(folder: Path, languages: tuple[str, ...] = ("id", "vi"), count: int = 12) -> Path:
    """Pages 0 to `count` - 1 in English and other languages, and fonts with the names of Noto's."""
    for language in ("en-US", *languages):
        for number in range(count):
            title = f"{_WORDS[language][number % 8].title()} {number}"
            kinds = ("paragraph", "listitem", "tip", "note")
            body = "\n".join(
                f'<p id="par_{i}" class="{kind}">{text} &amp;<b>b</b></p>'
                for i, kind in enumerate(kinds)
                for text in [sentence(language, 5 * number + i)]
            )
            write_page(folder, language, f"scalc/{number:02}", title, body)
    fonts = folder / "usr/share/fonts/truetype/noto"
    fonts.mkdir(parents=True)
    for name in ("NotoSans", "NotoSansKhmer"):
        for style, source in (("Regular", "DejaVuSans"), ("Bold", "DejaVuSans-Bold")):
            content = (_FONTS / f"{source}.ttf").read_bytes()
            (fonts / f"{name}-{style}.ttf").write_bytes(content)
    return folder


def write_page(folder: Path, language: str, name: str, title: str, body: str) -> None:
    """One page of the help."""
    path = folder / "usr/share/libreoffice/help" / language / "text" / f"{name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.format(title=title, body=body), encoding="utf-8")
