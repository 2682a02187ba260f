"""How figures look, and how they become files: readable in print at their size, and the same bytes from the same numbers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from wsdcast.runs.names import MOMENTS_ALONE

# Pictures are written to files; no window is ever opened.
matplotlib.use("Agg")

WIDTH = 7.2
"""Inches: both columns of a page."""
DPI = 300
FORMATS = (".png", ".pdf", ".svg")

LOOK: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}
"""Settings under which all figures are drawn; their type would be the list of all that matplotlib has."""

# Text stays text, in fonts that are embedded; names inside an SVG are not drawn by chance.
_FILES: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "wsdcast"}

# Okabe and Ito's, which the colour-blind tell apart, darkest first.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6b7280"

COLOURS = {
    "wsdcast": BLUE,
    MOMENTS_ALONE: VERMILION,
    "persistence": GREY,
    "climatology": GREEN,
    "probabilistic climatology": GREEN,
    "climatological mean": GREEN,
}
STYLES = {
    "wsdcast": "-",
    MOMENTS_ALONE: "--",
    "persistence": ":",
    "climatology": "-.",
    "probabilistic climatology": "-.",
    "climatological mean": (0, (1, 3)),
}
BASELINES = ("persistence", "climatology", "probabilistic climatology", "climatological mean")
"""Forecasts that nobody made."""


def looks(forecasts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and style of the line of each forecast, the judged one first; names without a colour of their own take the spare ones."""
    spare = cycle([PURPLE, SKY, ORANGE, "black"])
    found: dict[str, dict[str, Any]] = {}
    for name in map(str, forecasts):
        known = name if found or name in COLOURS else "wsdcast"
        found[name] = {"color": COLOURS.get(known) or next(spare), "linestyle": STYLES.get(known, (0, (4, 1, 1, 1)))}
    return found


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix is one of :data:`FORMATS`. No date goes into the file."""
    dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with matplotlib.rc_context(_FILES):
        figure.savefig(path, dpi=DPI, metadata=dates.get(path.suffix.lower()))
