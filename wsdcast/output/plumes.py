"""Plumes: a figure of the quantiles of wind speed by lead time for each place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.output.blocks import blocks_of
from wsdcast.output.ensemble import Choice, Field
from wsdcast.output.fields import Fields
from wsdcast.output.places import Places
from wsdcast.report import style
from wsdcast.report.plume import place, plume
from wsdcast.runs.artefact import complete


def plume_paths(table: Path, names: Sequence[str]) -> list[Path]:
    """Return the path of the figure of each place, next to the table and with the place in its name.

    Characters that are not letters or digits become ``-``. A number is added where two paths would be the same.
    """
    labels = [re.sub(r"[\W_]+", "-", name).strip("-") or "place" for name in names]
    seen: Counter[str] = Counter()
    paths = []
    for label in labels:
        key = label.lower()  # some file systems ignore case
        seen[key] += 1
        paths.append(table.with_name(f"{table.stem}-{label}{f'-{seen[key]}' if seen[key] > 1 else ''}.png"))
    return paths


def write_plumes(paths: list[Path], read: Callable[[slice], Field], fields: Fields, places: Places) -> None:
    """Draw the forecast from the last initial time at each place.

    Args:
        paths: file of each place.
        read: returns the members at some lead times, (member, lead, channel, place).
        fields: the forecasts.
        places: the places.
    """
    blocks = blocks_of(read, fields.leads, Choice((), QUANTILES), ("place",))
    bands = np.concatenate([block["speed_quantile"].values for _, block in blocks])  # (lead, quantile, place)
    start = np.datetime_as_string(fields.times[-1], "h")
    for number, path in enumerate(paths):
        where = place(places.latitude[number], places.longitude[number])
        title = f"{places.name[number]} ({where}), bilinear, from {start}"
        figure = plume(bands[:, :, number].T, np.full(fields.leads.size, np.nan), fields.leads, title)
        with complete(path) as partial:
            style.save(figure, partial)
