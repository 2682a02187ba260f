"""Animation of a forecast: the truth and some members."""

from __future__ import annotations

import subprocess
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.animation import FFMpegWriter, PillowWriter
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from wsdcast.data.sources.conventions import channels_in
from wsdcast.data.store.forecasts import loaded
from wsdcast.data.store.zarr_store import open_store
from wsdcast.report.maps import Lines, columns_of_map, draw_map
from wsdcast.report.panels import times_in_words
from wsdcast.report.style import LOOK
from wsdcast.report.subjects import subject
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import track
from wsdcast.verification.truth import Truth

MEMBERS = 3
FORMATS = (".gif", ".mp4")
FRAMES_PER_SECOND = 4
# Leaves the date and the version of the encoder out of the file, so that equal frames give equal bytes.
_REPRODUCIBLE = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"]


def require_writer(path: Path) -> None:
    """Check that an animation can be written, before time is spent on the forecast.

    Raises:
        UserError: if the file is an MP4 and ffmpeg is not installed.
    """
    if path.suffix.lower() == ".mp4" and not FFMpegWriter.isAvailable():
        raise UserError(f"{path}: an MP4 needs ffmpeg, which is not on the PATH; install it, or write a .gif")


def shows(path: Path, label: str) -> bool:
    """Whether a GIF of this module is there, and shows what has this label."""
    return path.is_file() and path.read_bytes().endswith(_end_of_gif(label))


def _end_of_gif(label: str) -> bytes:
    """The last bytes of a GIF: a comment that says what it shows, and the trailer."""
    return b"!\xfe" + bytes([len(label.encode())]) + label.encode() + b"\x00;"


@matplotlib.rc_context(LOOK)
def animate(forecast: Path, truth: Truth, path: Path, row: int, lines: Lines, headline: str | None) -> None:
    """Write a GIF or MP4 by lead time for one initial time: the first members, and the truth if it is complete.

    It shows the headline; by default that is the speed of the 10 m wind, or else the first variable. A comment in a GIF names it.

    Args:
        truth: has the states at the initial times, and those at the valid times that are known.
        row: position of the initial time in the store.

    Raises:
        UserError: if ffmpeg is needed and fails.
    """
    with open_store(forecast) as store:
        kept = channels_in(store)
        shown = subject([name for name in truth.variables if name in kept], headline)
        first = loaded(store[list(shown.channels)].isel(time=row, number=slice(0, MEMBERS)), forecast)
        members = shown.in_dataset(first)
        start, leads = first["time"].values, first["prediction_timedelta"].values
    first_state = shown.of(truth.at(start[None]), truth.variables)
    panels = {f"member {number}": np.concatenate([first_state, member]) for number, member in enumerate(members)}
    true = shown.of(truth.at(start + leads), truth.variables)
    if np.isfinite(true).all():
        panels = {"truth": np.concatenate([first_state, true])} | panels

    low, top = (0.0 if shown.is_wind else float(np.quantile(first_state, 0.005))), float(np.quantile(first_state, 0.995))
    columns = columns_of_map(truth.grid.longitude)
    steps = [np.timedelta64(0, "h"), *leads]
    figure = Figure(figsize=(8, 4.4))
    axes = figure.subplots(2, 2).ravel()
    images = [
        draw_map(axis, panel[0], truth.grid, name, low, top, lines=lines) for axis, (name, panel) in zip(axes, panels.items(), strict=False)
    ]
    for axis in axes[len(panels) :]:
        axis.axis("off")
    label = f"{shown.value_label} ({shown.units})"
    figure.colorbar(images[0], ax=list(axes), label=label, shrink=0.8, extend="max" if shown.is_wind else "both")
    title = figure.suptitle(times_in_words(start, steps[-1]))
    ConstrainedLayoutEngine().execute(figure)  # once, for the longest title; a figure that has an engine draws each frame twice

    is_mp4 = path.suffix.lower() == ".mp4"
    writer = FFMpegWriter(FRAMES_PER_SECOND, extra_args=_REPRODUCIBLE) if is_mp4 else PillowWriter(FRAMES_PER_SECOND)
    try:
        with writer.saving(figure, path, dpi=160 if is_mp4 else 80):
            for lead in track(range(leads.size + 1), "drawing the animation", leads.size + 1):
                for image, panel in zip(images, panels.values(), strict=True):
                    image.set_data(panel[lead][:, columns])
                title.set_text(times_in_words(start, steps[lead]))
                writer.grab_frame()
        if not is_mp4:
            path.write_bytes(path.read_bytes().removesuffix(b";") + _end_of_gif(shown.label))
    except subprocess.CalledProcessError as error:
        raise UserError(f"{path}: ffmpeg cannot write it (exit code {error.returncode}); write a .gif instead") from None
