"""The look of all figures, and how they are saved: readable in print, and equal bytes for equal numbers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, Locator, NullLocator

from wsdcast.report.subjects import Subject
from wsdcast.runs.names import PAST_ERRORS

WIDTH = 7.2
"""Width in inches, for both columns of a page."""
MARKED = 20
"""Number of points up to which a line has markers. More of them would hide whether it is dashed or dotted."""
LEADING_DIGITS = (1, 1.5, 2, 3, 5, 7)
"""First digits of the ticks of a logarithmic axis that covers little more than a decade."""
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
"""Settings of matplotlib for all figures. Typed as Any, since matplotlib's own type lists every key."""

# Text stays text, in embedded fonts. A fixed salt makes the identifiers in an SVG reproducible.
_FILES: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "wsdcast"}

# The colours of Okabe and Ito, which the colour-blind can tell apart, the darkest first, and a grey.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6b7280"

Look = tuple[str, str]
"""Colour and style of a line."""

FORECASTS: dict[str, Look] = {
    "wsdcast": (BLUE, "solid"),
    PAST_ERRORS: (VERMILION, "dashed"),
    "persistence": (GREY, "dotted"),
    "climatology": (GREEN, "dotdash"),
    "probabilistic climatology": (GREEN, "dotdash"),
    "climatological mean": (PURPLE, "sparse"),
}
COMPONENTS: tuple[Look, ...] = ((BLUE, "solid"), (VERMILION, "dashed"), (GREY, "dotted"))
"""Looks of u, v and the speed of a wind; another variable has the first."""
THRESHOLDS = (BLUE, VERMILION, GREY)
"""Colours of the thresholds of wind speed, in their order."""
PRIORS = {
    "warm": "#0b6e99",
    "standard": "#b91c1c",
    "features-only": "#d97706",
    "mean-only": "#7c3aed",
    "unblended": "#059669",
    "plain-blend": "#65a30d",
    "climatology": "#6b7280",
    "given": "#111827",
}
"""Colours of priors in studies."""
LINE_STYLES: dict[str, Any] = {
    "solid": "-",
    "dashed": "--",
    "dotted": ":",
    "dotdash": "-.",
    "sparse": (0, (1, 3)),
}
"""Names of the line styles in matplotlib."""


def looks(forecasts: Iterable[str]) -> dict[str, Look]:
    """Return the look of the line of each forecast. Only the one that is judged may have a name that is not in :data:`FORECASTS`."""
    return {str(name): FORECASTS.get(str(name), FORECASTS["wsdcast"]) for name in forecasts}


def components_of(of: Subject) -> dict[str, tuple[str, Look]]:
    """Return label and look of what is scored of a subject, by its name in scores: u, v and speed of a wind, or the variable."""
    if not of.is_wind:
        return {of.name: (of.label, COMPONENTS[0])}
    labels = zip((*of.channels, of.speed), ("u", "v", "wind speed"), COMPONENTS, strict=True)
    return {name: (label, look) for name, label, look in labels}


def legend_below(figure: Figure, text: str = "{}") -> None:
    """Name the lines and points of all panels once, below them, in as many columns as fit. ``text`` is filled with each label."""
    named = {label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    for columns in range(len(named), 0, -1):
        labels = [text.format(label) for label in named]
        legend = figure.legend(list(named.values()), labels, loc="outside lower center", ncols=columns, handlelength=3)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def set_ticks(axis: Axis, locator: Locator) -> None:
    """Use few ticks with plain numbers."""
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FormatStrFormatter("%g"))


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file with one of the suffixes :data:`FORMATS`. The file contains no date."""
    dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with matplotlib.rc_context(_FILES):
        figure.savefig(path, dpi=DPI, metadata=dates.get(path.suffix.lower()))
