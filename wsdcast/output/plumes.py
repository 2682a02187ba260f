"""Plumes: a figure of the quantiles by lead time for each place, with a panel for each variable."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr

from wsdcast.data.steps import time_in_words
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.output.blocks import LEAD, blocks_of
from wsdcast.output.ensemble import Choice, Field
from wsdcast.output.fields import Fields
from wsdcast.output.places import Places
from wsdcast.output.quantities import quantities_of
from wsdcast.report import style
from wsdcast.report.plume import place, plume
from wsdcast.report.subjects import subjects_of


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
    """Draw the forecast from the last initial time at each place: the speeds of winds, that at 10 m first, and the other variables.

    ``read`` returns the members at some lead times, (member, lead, channel, place).
    """
    blocks = blocks_of(read, fields.leads, Choice((), QUANTILES, variables=fields.variables), ("place",))
    products = xr.concat([block for _, block in blocks], LEAD)
    short_names = {quantity: name for name, quantity in quantities_of(fields.variables).items()}
    subjects = subjects_of(fields.variables)
    bands = [
        subject.display.of(products[f"{short_names[subject]}_quantile"].transpose("quantile", LEAD, "place").values) for subject in subjects
    ]
    start = fields.times[-1]
    for number, path in enumerate(paths):
        where = place(places.latitude[number], places.longitude[number])
        title = f"{places.name[number]} ({where}), bilinear, from {time_in_words(start)}"
        style.save(plume([of_subject[..., number] for of_subject in bands], subjects, fields.leads, title, start), path)
