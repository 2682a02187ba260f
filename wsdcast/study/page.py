"""The page of a study: the table of settings and the table of sufficient numbers of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import xarray as xr

from wsdcast.report.panels import with_interval
from wsdcast.report.tables import html_table

Column = tuple[str, Callable[[xr.Dataset], str]]
"""Heading of a column, and the text of its cell for a setting."""


def note(text: str) -> str:
    """A paragraph of explanation; ``text`` is HTML."""
    return f"<p class=note>{text}</p>"


def settings_table(study: xr.Dataset, columns: Iterable[Column]) -> str:
    """A row for each setting of a study; the best settings are bold."""
    columns = list(columns)
    settings = [study.isel(setting=index) for index in range(study.sizes["setting"])]
    rows = [[text(setting) for _, text in columns] for setting in settings]
    return html_table([name for name, _ in columns], rows, bold=[bool(setting["best"].item()) for setting in settings])


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
    return html_table(("prior", "saturates at"), rows)
