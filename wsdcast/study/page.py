"""The page of a study: its shell, the table of settings and the table of sufficient numbers of evaluations."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import xarray as xr

from wsdcast.report.panels import with_interval
from wsdcast.report.shell import STYLE

Column = tuple[str, Callable[[xr.Dataset], str]]
"""Heading of a column, and the text of its cell for a setting."""


def write_page(path: Path, title: str, parts: Iterable[str], recipe: str) -> None:
    """Write an HTML file that holds everything it shows.

    Args:
        path: of the file.
        title: of the page.
        parts: HTML of its sections.
        recipe: text of the recipe, shown at the end.
    """
    style = f"{STYLE} .wide table {{ font-size: .8125rem; white-space: nowrap; }} .wide td, .wide th {{ padding: .15rem .4rem; }}"
    head = f"<meta charset=utf-8><title>wsdcast: {html.escape(title)}</title><style>{style}</style>"
    body = f"<h1>{html.escape(title)}</h1>{''.join(parts)}<h2>Recipe</h2><pre>{html.escape(recipe)}</pre>"
    path.write_text(f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>", encoding="utf-8")


def note(text: str) -> str:
    """A paragraph of explanation; ``text`` is HTML."""
    return f"<p class=note>{text}</p>"


def table(rows: Iterable[Iterable[str]], bold: Iterable[bool] = ()) -> str:
    """An HTML table; the first row is the heading. ``bold`` says for each other row whether it is bold."""
    head, *body = [list(row) for row in rows]
    weights = [" style=font-weight:600" if is_bold else "" for is_bold in bold] or [""] * len(body)
    lines = [
        f"<tr{weight}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for weight, row in zip(weights, body, strict=True)
    ]
    return f"<div class=wide><table><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>{''.join(lines)}</table></div>"


def settings_table(study: xr.Dataset, columns: Iterable[Column]) -> str:
    """A row for each setting of a study; the best settings are bold."""
    columns = list(columns)
    settings = [study.isel(setting=index) for index in range(study.sizes["setting"])]
    rows = [[text(setting) for _, text in columns] for setting in settings]
    return table([[name for name, _ in columns], *rows], [bool(setting["best"].item()) for setting in settings])


def of(name: str) -> Callable[[xr.Dataset], str]:
    """The text of a coordinate of a setting."""
    return lambda setting: str(setting[name].item())


def score(name: str, digits: int, factor: float = 1) -> Callable[[xr.Dataset], str]:
    """The text of a score of a setting, with its interval, times ``factor``."""

    def text(setting: xr.Dataset) -> str:
        if name not in setting:
            return ""
        interval = factor * setting[f"{name}_interval"].values if f"{name}_interval" in setting else None
        return with_interval(factor * setting[name].item(), f".{digits}f", interval)

    return text


def saturation_table(saturates: Mapping[str, int | None]) -> str:
    """The sufficient number of evaluations of each prior, as :func:`wsdcast.study.summary.smallest_sufficient` returns it."""
    rows = [(prior, str(nfe or "no number is both")) for prior, nfe in saturates.items()]
    return table([("prior", "saturates at"), *rows])
