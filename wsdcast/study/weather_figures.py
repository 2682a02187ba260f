"""The figures of a weather study alone: scores by lead time and spectra (Figs. 6 and 7 of the paper)."""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from wsdcast.report.style import LOOK
from wsdcast.study.figures import best_of_prior, look_of, priors_of


def rolled_out(study: xr.Dataset) -> xr.Dataset:
    """The settings with scores of forecasts of several steps, and evaluations of the generator."""
    return study.isel(setting=(study["crps"].notnull().any("prediction_timedelta") & (study["nfe"] > 0)).values)


@matplotlib.rc_context(LOOK)
def by_lead(study: xr.Dataset) -> Figure:
    """Fig. 6: CRPS against lead time, and for each prior and number of evaluations the gain over the reference."""
    days = study["prediction_timedelta"].values / np.timedelta64(1, "D")
    rolled = rolled_out(study)
    priors = priors_of(rolled)
    of_crps = f"fair CRPS ({study.attrs.get('units', 'm/s')})"
    name, factor, label = ("crps_gain", 100, "gain in CRPS (%)") if "crps_gain" in study else ("crps", 1, of_crps)
    figure = Figure(figsize=(3.4 * (1 + len(priors)), 3.6), layout="constrained")
    axes = figure.subplots(1, 1 + len(priors))
    for axis, prior in zip(axes[1:], priors, strict=True):
        axis.sharey(axes[1])
        curves = best_of_prior(rolled, prior)
        for number, shade in enumerate(np.linspace(0.4, 1, curves.sizes["setting"])):
            curve = curves.isel(setting=number)
            low, high = factor * curve[f"{name}_interval"].transpose("bound", "prediction_timedelta").values
            at = days + 0.06 * (number - (curves.sizes["setting"] - 1) / 2)  # side by side
            line = {"color": look_of(prior)["color"], "alpha": shade}
            nfe = curve["nfe"].item()
            axis.plot(at, factor * curve[name], marker=".", label=f"{nfe} evaluation{'s' * (nfe > 1)}", **line)
            axis.vlines(at, low, high, **line)
        if curves.sizes["setting"]:
            last = curves.isel(setting=-1)
            axes[0].plot(days, last["crps"], marker=".", label=f"{prior}, {last['nfe'].item()}", **look_of(prior))
        if name == "crps_gain":
            axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=prior, xlabel="lead time (days)", ylabel=label if axis is axes[1] else None)
    axes[0].set(title="most evaluations", xlabel="lead time (days)", ylabel=of_crps)
    for axis in axes:
        below = offset_copy(axis.transAxes, figure, y=-30, units="points")  # where it hides nothing, however high the panels are
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below)
    figure.draw_without_rendering()  # the layout needs a first pass to make room for legends outside of the panels
    return figure


@matplotlib.rc_context(LOOK)
def spectra(study: xr.Dataset) -> Figure:
    """Fig. 7: the ratio of power by wavenumber and evaluations for each prior, and the sum of its deviations from 1."""
    study = study.isel(setting=(study["nfe"] > 0).values)
    priors = [prior for prior in ("standard", "features-only", "warm") if prior in priors_of(study)] or priors_of(study)[:3]
    figure = Figure(figsize=(3.4 * (1 + len(priors)), 3.6), layout="constrained")
    axes = figure.subplots(1, 1 + len(priors), squeeze=False)[0]
    for axis, prior in zip(axes, priors, strict=False):
        curve = best_of_prior(study, prior)
        ratio = curve["power_ratio_6h"].transpose("setting", "wavenumber").values
        low, high = curve["wavenumber"].values[[0, -1]] + [-0.5, 0.5]
        extent = (low, high, -0.5, curve.sizes["setting"] - 0.5)
        axis.grid(visible=False)
        norm = TwoSlopeNorm(1, 0.5, 1.5)
        image = axis.imshow(ratio, aspect="auto", origin="lower", cmap="RdBu_r", norm=norm, extent=extent, interpolation="nearest")
        axis.set_yticks(range(curve.sizes["setting"]), [str(nfe) for nfe in curve["nfe"].values])
        axis.set(title=prior, xlabel="zonal wavenumber", ylabel="evaluations" if axis is axes[0] else None)
    figure.colorbar(image, ax=list(axes[:-1]), label="power of members / truth", shrink=0.8)
    for prior in priors_of(study):
        curve = best_of_prior(study, prior)
        axes[-1].plot(curve["nfe"], curve["power_deviation_sum_6h"], label=prior, marker=".", **look_of(prior))
    axes[-1].set(yscale="log", xlabel="evaluations", title="sum of |1 - ratio|")
    axes[-1].legend()
    return figure
