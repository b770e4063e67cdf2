"""docs/quickstart.png: what texts find among images and recordings, before and after the text-only
stage of a finished quickstart.

`python -m benchmarks.quickstart_picture runs/quickstart` needs the extra `documents`; it takes
seconds, and reads the vectors that the run has left. Queries are drawn with a fixed seed.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
import numpy as np
import soundfile
import tyro
from etils import epath

from lco_jax.lab.scores import PairSet, read_pair_sets, turned
from lco_jax.metrics.comparison import EmbeddedPairs
from lco_jax.metrics.retrieval import chance

_PAGE = jinja2.Template(
    """<meta charset="utf-8"><style>
@page { size: 920px 2000px; margin: 0 }
body { color: #1c1e26; font: 14px/1.4 "DejaVu Sans", sans-serif; margin: 0; padding: 18px 22px }
h1 { font-size: 19px; margin: 0 0 4px }
p { color: #5d636c; font-size: 12.5px; margin: 0 0 8px }
h2 { font-size: 15px; margin: 14px 0 2px }
h2 span { color: #5d636c; font-size: 12.5px; font-weight: normal }
table { border-collapse: collapse; table-layout: fixed; width: 100% }
th { color: #5d636c; font-size: 12px; text-align: left; padding: 4px }
td { border-top: 1px solid #d9dce2; padding: 7px 4px; vertical-align: top }
.query { width: 20% } .before { color: #c8702a } .after { color: #0a7d8c }
.item { border: 2px solid #fff; border-radius: 6px; display: inline-block; font-size: 10px;
  line-height: 1.25; margin-right: 3px; overflow: hidden; padding: 2px; vertical-align: top;
  width: 68px }
.item img { display: block; height: 46px; margin: 0 auto 2px; max-width: 66px }
.right { border-color: #23804a } .rank { color: #5d636c; display: block; font-size: 11px }
</style>
<h1>The last stage read texts only. What texts find before and after it</h1>
<p>Held-out media, {{ top_k }} nearest, best first. Queries are drawn with a fixed seed, not chosen;
  the right answer has a frame.</p>
{% for part in parts %}
<h2>{{ part.heading }} <span>MRR {{ "%.3f" | format(part.before) }} before, {{
  "%.3f" | format(part.after) }} after; a random order: {{ "%.3f" | format(part.chance) }};
  {{ part.count }} queries</span></h2>
<table><tr><th class="query">query</th><th class="before">found before</th>
  <th class="after">found after</th></tr>
{% for query in part.queries %}<tr><td class="query">{{ query.text | e }}</td>
{% for found in query.found %}<td>{% for item in found["items"] %}
<div class="item{{ " right" if item.right }}"><img src="{{ item.uri }}">{{ item.text | e }}</div>
{% endfor %}<span class="rank">the right one is at rank {{ found.rank }} of {{ part.count }}</span>
</td>{% endfor %}</tr>{% endfor %}</table>
{% endfor %}""",
    undefined=jinja2.StrictUndefined,
)
_HEADINGS = {"image": "Texts look for images", "audio": "Texts look for recordings"}
_TOP_K = 4
_QUERIES = {"image": 4, "audio": 3}
_SHOWN_LETTERS = 26
_SCALE = 2
"""Pixels of the picture for one of the page."""


@dataclass(frozen=True)
class _Arguments:
    """Draw what a finished quickstart finds."""

    workdir: Annotated[Path, tyro.conf.Positional]
    """Folder of the job."""
    stage: str = "refine"
    """Whose vectors before and after are shown."""
    output: Path = Path("docs/quickstart.png")


def main() -> None:
    """Read the vectors, draw, write."""
    arguments = tyro.cli(_Arguments, description=__doc__)
    draw_run(arguments.workdir / arguments.stage, arguments.output)


def draw_run(folder: Path, output: Path) -> None:
    """Draw what the texts of a run find, from the vectors in its folder.

    Raises:
        ValueError: it was not evaluated on images and recordings before and after.
    """
    sets = {pairs.modality: pairs for pairs in read_pair_sets(epath.Path(folder))}
    missing = sorted(set(_HEADINGS) - set(sets))
    if missing:
        raise ValueError(f"{folder} has no two evaluations of {' and '.join(missing)}")
    page = _PAGE.render(parts=[_part(sets[name]) for name in _HEADINGS], top_k=_TOP_K)
    draw(page, output)


def draw(page: str, output: Path) -> None:
    """Write a page as an image, cut where its content ends."""
    import pypdfium2
    import weasyprint

    pdf = pypdfium2.PdfDocument(weasyprint.HTML(string=page).write_pdf())
    image = pdf[0].render(scale=_SCALE / 0.75).to_pil().convert("RGB")
    rows = np.flatnonzero((np.asarray(image) < 250).any(axis=(1, 2)))
    bottom = min(image.height, int(rows.max()) + 14 * _SCALE)
    image.crop((0, 0, image.width, bottom)).quantize(255).save(output, optimize=True)


def _part(pairs: PairSet) -> dict[str, Any]:
    evaluations = tuple(turned(pairs.evaluations[name]) for name in ("before", "after"))
    before, after = (float(x.scores()["mrr"].mean()) for x in evaluations)
    count = len(pairs.lines)
    drawn = np.random.default_rng(0).permutation(count)[: _QUERIES[pairs.modality]].tolist()
    return {
        "heading": _HEADINGS[pairs.modality],
        "before": before,
        "after": after,
        "chance": chance(count)["mrr"],
        "count": count,
        "queries": [
            {
                "text": pairs.lines[i]["positive"],
                "found": [_found(pairs, found, i) for found in evaluations],
            }
            for i in drawn
        ],
    }


def _found(pairs: PairSet, evaluation: EmbeddedPairs, query: int) -> dict[str, Any]:
    cosines = evaluation.anchors[query] @ evaluation.positives.T
    best = np.argsort(-cosines, kind="stable")[:_TOP_K].tolist()
    items = [_item(pairs, number) | {"right": number == query} for number in best]
    return {"rank": f"{evaluation.ranks().expected[query]:g}", "items": items}


def _item(pairs: PairSet, number: int) -> dict[str, str]:
    line = pairs.lines[number]
    content = (pairs.folder / line[pairs.modality]).read_bytes()
    text = line["positive"]
    if len(text) > _SHOWN_LETTERS:
        text = text[: _SHOWN_LETTERS - 1].rstrip() + "…"
    if pairs.modality == "image":
        return {"uri": _uri("image/png", content), "text": text}
    return {"uri": _uri("image/svg+xml", _waveform(content).encode()), "text": f"“{text}”"}


def _waveform(content: bytes) -> str:
    """The loudness of a recording over time, as bars."""
    samples, _ = soundfile.read(io.BytesIO(content))
    parts = np.array_split(np.abs(samples), 36)
    heights = np.array([part.max() for part in parts])
    heights = np.maximum(1, 44 * heights / max(heights.max(), 1e-6))
    bars = "".join(
        f'<rect x="{2 * i}" y="{23 - height / 2:.1f}" width="1.4" height="{height:.1f}"/>'
        for i, height in enumerate(heights)
    )
    space = "http://www.w3.org/2000/svg"
    return f'<svg xmlns="{space}" width="72" height="46" fill="#455a64">{bars}</svg>'


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


if __name__ == "__main__":
    main()
