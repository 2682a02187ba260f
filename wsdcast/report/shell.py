"""The frame of a page: one HTML file that contains all data and the plotting library, and asks for nothing else."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bokeh.document import Document
from bokeh.embed import components
from bokeh.models import UIElement
from bokeh.resources import Resources
from matplotlib.figure import Figure

from wsdcast.report.panels import Row

Part = str | Sequence[UIElement]
"""A part of a page: HTML, or figures and controls of Bokeh."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1f2937; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2rem; }
img { max-width: 100%; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #e5e7eb; } th { font-weight: 600; }
.wide { overflow-x: auto; } p.note { color: #6b7280; } pre { background: #f3f4f6; padding: 1rem; overflow-x: auto; font-size: .85rem; }
dl { display: flex; flex-wrap: wrap; gap: .4rem 2rem; margin: .8rem 0 0; } dl div { min-width: 0; overflow-wrap: anywhere; }
dt { font-size: .75rem; color: #6b7280; line-height: 1.2; } dd { margin: 0; }
"""
INTERACTIVE_STYLE = """
h1 { line-height: 1.2; } h2 { margin: 2.2rem 0 .3rem; } p.note { font-size: .875rem; margin: .5rem 0 .8rem; max-width: 52rem; }
table { font-size: .8125rem; width: 100%; } td { white-space: pre; } td, th { padding: .15rem .4rem; vertical-align: baseline; }
thead th { white-space: pre-line; }
tr > :first-child { padding-left: 0; text-align: left; } th[scope=row] { font-weight: 400; min-width: 7rem; }
thead th { border-bottom: 2px solid #d1d5db; }
tr:has(> th[scope=row]) > * { border-bottom: none; }
tr:has(> th[scope=row]:not(:empty)) > * { border-top: 1px solid #e5e7eb; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 310px), 1fr)); gap: .6rem 1rem; }
html { scroll-padding-top: 8rem; } .card { white-space: pre-wrap; }
.pairs { grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.row > *, .controls > * { min-width: 0; } .row > * { overflow: clip; }
.legend { font-size: .875rem; margin: .6rem 0 .2rem; display: flex; flex-wrap: wrap; gap: 0 1.2rem; }
.controls { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; align-items: end; position: sticky; top: 0; z-index: 2; background: white;
  padding: .4rem 0; }
.controls > :last-child { flex: 1 1 16rem; padding-right: .8rem; }
details { margin-top: .6rem; } summary { cursor: pointer; font-size: .875rem; } .recipe { columns: 16rem; }
@media print {
  @page { size: A4; margin: 12mm; }
  body { margin: 0; padding: 0; max-width: none; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  table { font-size: .7rem; } td { white-space: pre-line; min-width: 2.4rem; } td, th { padding: .1rem .2rem; }
  .controls { position: static; } .wide, pre { overflow: visible; } pre { white-space: pre-wrap; }
  h2, .legend { break-after: avoid; } .row > *, tr { break-inside: avoid; } .row > * { overflow: visible; }
}
"""
PLAIN_STYLE = ".wide table { font-size: .8125rem; } .wide td, .wide th { padding: .15rem .4rem; } .wide td { white-space: nowrap; }"
VIEWPORT = "<meta name=viewport content='width=device-width, initial-scale=1'>"
"""Without it a phone shows a page as wide as a desk's screen, in tiny letters."""
PLAIN_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A page may not load anything from a network. Without interactive figures it runs no script either."""
# 'unsafe-eval' is needed because Bokeh compiles callbacks from text.
POLICY = f"{PLAIN_POLICY} blob:; script-src 'unsafe-inline' 'unsafe-eval'; font-src data:"

RANDOM_NAME = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A UUID. Packed data contain none, because Base64 has no hyphen."""


def write_page(path: Path, title: str, parts: Sequence[Part]) -> None:
    """Write an HTML page with interactive figures. The HTML among its parts is written as it is."""
    models = [model for part in parts if not isinstance(part, str) for model in part]
    document = Document()
    with document.models.freeze():  # so that Bokeh walks through the models once, not for every figure
        for model in models:
            document.add_root(model)
    script, figure_tags = components(models)
    names: dict[str, str] = {}

    def numbered(text: str) -> str:
        """Replace Bokeh's random names by numbers, so that another process writes the same bytes."""
        return RANDOM_NAME.sub(lambda name: names.setdefault(name[0], f"bokeh-{len(names)}"), text)

    script, tags = numbered(script), iter([numbered(tag) for tag in figure_tags])
    body = "".join(part if isinstance(part, str) else "".join(f"<div>{next(tags)}</div>" for _ in part) for part in parts)
    library = Resources(mode="inline", components=["bokeh", "bokeh-widgets"]).render()
    _write(path, title, INTERACTIVE_STYLE, POLICY, f"{body}{library}{script}")


def write_plain_page(path: Path, title: str, parts: Iterable[str], recipe: str) -> None:
    """Write an HTML page without interactive figures, with the text of the recipe at its end."""
    body = f"<h1>{html.escape(title)}</h1>{''.join(parts)}<h2>Recipe</h2><pre>{html.escape(recipe)}</pre>"
    _write(path, f"wsdcast: {title}", PLAIN_STYLE, PLAIN_POLICY, body)


def _write(path: Path, title: str, style: str, policy: str, body: str) -> None:
    head = (
        f'<meta charset=utf-8><meta http-equiv=Content-Security-Policy content="{policy}">'
        f"{VIEWPORT}<title>{html.escape(title)}</title>"
        f"<style>{STYLE}{style}</style>"
    )
    path.write_text(f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>\n", encoding="utf-8")


def one_of(labels: Sequence[str], contents: Sequence[Sequence[Part]]) -> list[Part]:
    """Return contents of which the reader chooses one by its label, a variable. A single one needs no choice.

    What is not chosen keeps its width and loses its height, so that its figures have the right size when they are chosen.
    """
    if len(contents) == 1:
        return list(contents[0])
    options = "".join(f"<option value={number}>{html.escape(label)}</option>" for number, label in enumerate(labels))
    parts: list[Part] = [
        "<style>.unchosen { visibility: hidden; height: 0; overflow: hidden; }</style>"
        f"<p><label>Variable <select id=subject onchange=\"document.querySelectorAll('article').forEach((article, number) => "
        f"article.className = number == this.value ? '' : 'unchosen')\">{options}</select></label></p>"
    ]
    for number, content in enumerate(contents):
        parts += [f'<article id="subject{number}" class="{"unchosen" if number else ""}">', *content, "</article>"]
    return parts


def facts_list(facts: Mapping[str, str]) -> str:
    """Return facts by name as an HTML list."""
    items = (f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(fact)}</dd></div>" for name, fact in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def figures_row(row: Row, style: str = "row") -> list[Part]:
    """Return the legend of the figures and below it the figures side by side, with a class of CSS."""
    return [row.legend() if row.lines else "", f'<div class="{style}">', row.figures, "</div>"]


def picture(figure: Figure, alternative: str) -> str:
    """Return a figure as an image tag that contains the image (PNG)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img alt="{alternative}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
