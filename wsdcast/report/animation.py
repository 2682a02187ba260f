"""The animated picture of a forecast: truth beside members."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

from wsdcast.data.analysis import Analysis
from wsdcast.data.store import open_store, read_wind
from wsdcast.progress import track
from wsdcast.report.maps import draw_map, wind_speed

MEMBERS = 3


def animate(forecast: Path, record: Analysis, path: Path) -> None:
    """Write a GIF of wind speed, lead by lead, for the first start of a store: the first members, and the truth if there is one."""
    with open_store(forecast) as store:
        first = store.isel(time=0, number=slice(0, MEMBERS))
        members = wind_speed(read_wind(first))
        start, leads = first["time"].values, first["prediction_timedelta"].values
    now = np.flatnonzero(record.times == start)[0]
    first_state = wind_speed(record.wind[now : now + 1])
    panels = {f"member {number}": np.concatenate([first_state, member]) for number, member in enumerate(members)}
    true = np.flatnonzero(np.isin(record.times, start + leads))
    if true.size == leads.size:
        panels = {"truth": np.concatenate([first_state, wind_speed(record.wind[true])])} | panels

    top = float(np.quantile(first_state, 0.995))
    hours = [0, *(leads // np.timedelta64(1, "h"))]
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    images = [draw_map(axis, panel[0], record.grid, name, 0.0, top) for axis, (name, panel) in zip(axes, panels.items(), strict=False)]
    figure.colorbar(images[0], ax=list(axes), label="wind speed (m/s)", shrink=0.8)
    title = figure.suptitle("")

    writer = PillowWriter(fps=4)
    with writer.saving(figure, path, dpi=80):
        for lead in track(range(leads.size + 1), "drawing the animation", leads.size + 1):
            for image, panel in zip(images, panels.values(), strict=True):
                image.set_data(panel[lead])
            title.set_text(f"{start.astype('datetime64[h]')} + {hours[lead]} h")
            writer.grab_frame()
