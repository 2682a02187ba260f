"""The HTML page with the scores of one experiment: facts, table, pictures of samples, spectrum and recipe."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from wsdcast.report.panels import with_interval
from wsdcast.report.shell import facts_list, picture, write_plain_page
from wsdcast.report.style import LOOK, set_ticks
from wsdcast.report.tables import html_table

CAPTIONS = {
    "grid": "Contexts, mean and standard deviation, samples, and the truth",
    "process": "One sample from noise to image, in normalised space and in data space",
    "same_noise": "Samples of the same noise with increasing numbers of evaluations",
    "tails": "Hidden values before and after normalisation, by warmth: values beyond the dashed prior are hard to reach from it",
}
"""The caption of each picture that was drawn with the samples."""

NOTE = (
    "Brackets hold 95 % of bootstrap samples of contexts, for these networks; training with other seeds changes the scores more "
    "(<code>wsdcast inpaint study</code>). Images range from 0 to 1. The classifier distance is a Fréchet distance by features of a small "
    "classifier trained on the training images. It compares the rows of this page with each other, and it is not FID."
)


def write_score_page(
    path: Path, name: str, rows: list[dict[str, Any]], power: xr.Dataset, about: Mapping[str, str], pictures: Path, recipe_text: str
) -> None:
    """Write the page.

    Args:
        rows: rows of the table, each with ``scored``, and for each score SCORE its value and ``SCORE_interval``.
        power: ``power`` and ``power_truth`` by ``scored`` and ``wavenumber``.
        pictures: directory of the pictures that were drawn with the samples.
    """
    names = [name for name in LABELS if name in rows[0]]
    cells = [[row["scored"], *(with_interval(row[name], f".{DIGITS[name]}f", row[f"{name}_interval"]) for name in names)] for row in rows]
    scores = html_table(["", *(LABELS[name] for name in names)], cells)
    parts = [f"{facts_list(about)}<h2>Scores</h2>{scores}<p class=note>{NOTE}</p>"]
    for kind, caption in CAPTIONS.items():
        if not (pictures / f"{kind}.png").exists():  # an earlier version drew fewer pictures
            continue
        data = base64.b64encode((pictures / f"{kind}.png").read_bytes()).decode()
        parts.append(f'<h2>{caption}</h2><img src="data:image/png;base64,{data}" alt="{caption}">')
    spectrum_html = "<p class=note>The true images have no power: each is of one colour.</p>"
    if (power["power_truth"] > 0).any():
        spectrum_html = picture(spectrum(power), "Power of samples over power of true images, by wavenumber")
    parts.append(f"<h2>Spectrum</h2>{spectrum_html}")
    write_plain_page(path, f"Images: {name}", parts, recipe_text)


@matplotlib.rc_context(LOOK)
def spectrum(power: xr.Dataset) -> Figure:
    """Draw the mean power of samples over the mean power of the truth. The right value is 1; samples below it are too smooth."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for name in power["scored"].values:
        of_name = power.sel(scored=name)
        axes.plot(power["wavenumber"], of_name["power"] / of_name["power_truth"], label=str(name))
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="waves across the image", ylabel="power, samples / truth")
    for axis in (axes.xaxis, axes.yaxis):
        set_ticks(axis, LogLocator(subs=(1, 2, 5)))
    axes.legend(fontsize=8)
    return figure


LABELS = {
    "fid": "FID (Inception features)",
    "classifier_distance": "classifier distance (not FID)",
    "crps": "fair CRPS of hidden pixels",
    "crps_standard": "CRPS of one sample, its absolute error",
    "psnr": "PSNR of the ensemble mean (dB)",
    "diversity": "diversity among samples",
    "power_deviation": "spectrum: mean |1 - ratio|",
    "consistency": "error at visible pixels",
    "spread_skill": "spread / skill",
}
"""The label of each score, in the order of the page. A study may lack some of the scores."""


DIGITS = {
    "fid": 2,
    "classifier_distance": 3,
    "crps": 4,
    "crps_standard": 4,
    "psnr": 2,
    "diversity": 4,
    "power_deviation": 3,
    "consistency": 4,
    "spread_skill": 3,
}
"""Decimal places of each score."""
