"""The page of a study: the paper's Figs. 5 to 8 for one's own data, and the tables behind them."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from wsdcast.report.page import STYLE, picture
from wsdcast.report.style import PRIORS
from wsdcast.runs.names import MOMENTS_ALONE

LABELS = (
    ("crps_6h", "fair CRPS at 6 h (m/s)"),
    ("power_deviation_6h", "spectrum: mean |1 - ratio|"),
    ("spread_skill_6h", "spread / skill"),
)


def write_study_page(path: Path, study: xr.Dataset, name: str, recipe: str, saturates: dict[str, int | None]) -> None:
    """Write the page of a study.

    Args:
        path: of the HTML file.
        study: as in ``study.nc``.
        name: of the recipe.
        recipe: its text, shown at the end.
        saturates: for each prior the smallest number of evaluations that is as good as any.
    """
    about = (
        f"{study.attrs['grid']} grid, {study.attrs['members']} members, {int(study['starts_6h'])} starts of one step, training seeds "
        f"{', '.join(str(seed) for seed in study['seed'].values)}. Scores are means over seeds; bands and brackets hold 95 % of bootstrap "
        f"samples of start dates. Recipe hash {study.attrs['recipe_hash']}; made by <code>wsdcast study nfe</code>."
    )
    parts = [
        f"<h1>Function evaluations: {html.escape(name)}</h1><p class=note>{about}</p>",
        "<h2>One step of 6 h, by number of evaluations</h2>",
        picture(by_evaluations(study), "Scores against evaluations, best solver of each prior"),
        "<p class=note>The best solver, grid in time and warmth of each prior at each number of evaluations: of those whose CRPS is "
        "within 1 % of the lowest, the least deviation of the spectrum. "
        f"Chosen on {html.escape(study.attrs['chosen_on'])}; all scores in the figures are of the test part. "
        "Evaluations are the generator's; the moments network adds "
        f"{float(study.attrs['moments_share']):.2f} to every prior but the standard one and the climatology.</p>",
        "<p class=note>All priors were trained at equal cost, counted in operations; by the clock, with whatever else the machine did: "
        f"{_training(study)}.</p>",
        _saturation(saturates, "validation" if "crps_6h_validation" in study else "test"),
        "<h2>The spectrum</h2>",
        picture(spectra(study), "Ratio of power by zonal wavenumber and evaluations"),
        "<p class=note>Power of members over power of the truth: white is right, blue too smooth, red too rough.</p>",
    ]
    if "crps" in study and _priors(_rolled_out(study)):
        parts += [
            f"<h2>Forecasts</h2>{picture(by_lead(study), 'CRPS by lead time')}",
            f"<p class=note>{int(study['starts'])} starts. Left: the best setting of each prior at its largest number of evaluations; "
            f"others: each prior by number of evaluations, over {html.escape(study.attrs['reference'])}.</p>",
        ]
    if len({(solver, grid) for solver, grid in zip(study["solver"].values, study["grid_in_time"].values, strict=True) if solver}) > 1:
        parts += ["<h2>Solvers and grids in time</h2>", picture(by_solver(study), "Scores by solver")]
    parts += ["<h2>All settings</h2>", _table(study), f"<h2>Recipe</h2><pre>{html.escape(recipe)}</pre>"]
    page = f"<!doctype html><html lang=en><head><meta charset=utf-8><title>wsdcast study: {html.escape(name)}</title>"
    path.write_text(f"{page}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>", encoding="utf-8")


def _training(study: xr.Dataset) -> str:
    """Seconds that the networks of each prior took, of those that are known."""
    pairs = zip(study["studied"].values, study["training_seconds"].values, strict=True)
    return ", ".join(f"{prior} {seconds:.0f} s" for prior, seconds in pairs if np.isfinite(seconds)) or "not known"


def _priors(study: xr.Dataset) -> list[str]:
    return list(dict.fromkeys(str(prior) for prior, nfe in zip(study["prior"].values, study["nfe"].values, strict=True) if nfe))


def _rolled_out(study: xr.Dataset) -> xr.Dataset:
    return study.isel(setting=study["crps"].notnull().any("prediction_timedelta").values)


def _curve(study: xr.Dataset, prior: str) -> xr.Dataset:
    """Best settings of one prior by number of evaluations."""
    return study.isel(setting=((study["prior"] == prior) & study["best"]).values).sortby("nfe")


def by_evaluations(study: xr.Dataset) -> Figure:
    """Fig. 5: scores of one step against cost, the moments network's evaluation included, one line for each prior."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axis, (name, label) in zip(figure.subplots(1, 3), LABELS, strict=True):
        for prior in _priors(study):
            curve, main = _curve(study, prior), prior in ("warm", "standard", "features-only")
            axis.plot(curve["cost"], curve[name], color=PRIORS[prior], label=prior, marker=".", linestyle="-" if main else "--")
            if main:
                low, high = curve[f"{name}_interval"].transpose("bound", "setting").values
                axis.fill_between(curve["cost"], low, high, color=PRIORS[prior], alpha=0.15)
        alone = study[name].values[study["nfe"].values == 0]
        if name == "crps_6h" and alone.size:
            axis.axhline(alone[0], color="black", linewidth=0.8, linestyle=":", label=MOMENTS_ALONE)
        if name == "spread_skill_6h":
            axis.axhline(1, color="black", linewidth=0.8)
        if name == "power_deviation_6h":
            axis.set_yscale("log")
        axis.set(xlabel="cost of a sample in evaluations of the generator", ylabel=label)
        axis.grid(alpha=0.3)
    # Where there is room; the first panel has all of the lines.
    figure.axes[-1].legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8)
    return figure


def by_lead(study: xr.Dataset) -> Figure:
    """Fig. 6: CRPS against lead time, then for each prior by number of evaluations its gain over the reference, which tells them apart."""
    days = study["prediction_timedelta"].values / np.timedelta64(1, "D")
    rolled = _rolled_out(study)
    priors = _priors(rolled)
    name, factor, label = ("crps_gain", 100, "gain in CRPS (%)") if "crps_gain" in study else ("crps", 1, "fair CRPS (m/s)")
    figure = Figure(figsize=(3.4 * (1 + len(priors)), 3.6), layout="constrained")
    axes = figure.subplots(1, 1 + len(priors))
    for axis, prior in zip(axes[1:], priors, strict=True):
        axis.sharey(axes[1])
        curves = _curve(rolled, prior)
        for number, shade in enumerate(np.linspace(0.4, 1, curves.sizes["setting"])):
            curve = curves.isel(setting=number)
            low, high = factor * curve[f"{name}_interval"].transpose("bound", "prediction_timedelta").values
            at = days + 0.06 * (number - (curves.sizes["setting"] - 1) / 2)  # side by side
            line = {"color": PRIORS[prior], "alpha": shade}
            axis.plot(at, factor * curve[name], marker=".", label=f"{curve['nfe'].item()} evaluations", **line)
            axis.vlines(at, low, high, **line)
        if curves.sizes["setting"]:
            last = curves.isel(setting=-1)
            axes[0].plot(days, last["crps"], color=PRIORS[prior], marker=".", label=f"{prior}, {last['nfe'].item()}")
        if name == "crps_gain":
            axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=prior, xlabel="lead time (days)", ylabel=label if axis is axes[1] else None)
        axis.legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[0].set(title="most evaluations", xlabel="lead time (days)", ylabel="fair CRPS (m/s)")
    axes[0].legend(fontsize=8)
    return figure


def spectra(study: xr.Dataset) -> Figure:
    """Fig. 7: the ratio of power by wavenumber and evaluations for each prior, and the sum of its deviations from 1."""
    priors = [prior for prior in ("standard", "features-only", "warm") if prior in _priors(study)] or _priors(study)[:3]
    figure = Figure(figsize=(3.4 * (1 + len(priors)), 3.6), layout="constrained")
    axes = figure.subplots(1, 1 + len(priors), squeeze=False)[0]
    for axis, prior in zip(axes, priors, strict=False):
        curve = _curve(study, prior)
        ratio = curve["power_ratio_6h"].transpose("setting", "wavenumber").values
        low, high = curve["wavenumber"].values[[0, -1]] + [-0.5, 0.5]
        extent = (low, high, -0.5, curve.sizes["setting"] - 0.5)
        norm = TwoSlopeNorm(1, 0.5, 1.5)
        image = axis.imshow(ratio, aspect="auto", origin="lower", cmap="RdBu_r", norm=norm, extent=extent, interpolation="nearest")
        axis.set_yticks(range(curve.sizes["setting"]), [str(nfe) for nfe in curve["nfe"].values])
        axis.set(title=prior, xlabel="zonal wavenumber", ylabel="evaluations" if axis is axes[0] else None)
    figure.colorbar(image, ax=list(axes[:-1]), label="power of members / truth", shrink=0.8)
    for prior in _priors(study):
        curve, main = _curve(study, prior), prior in priors
        axes[-1].plot(
            curve["nfe"], curve["power_deviation_sum_6h"], color=PRIORS[prior], label=prior, marker=".", linestyle="-" if main else "--"
        )
    axes[-1].set(yscale="log", xlabel="evaluations", title="sum of |1 - ratio|")
    axes[-1].grid(alpha=0.3)
    axes[-1].legend(fontsize=8)
    return figure


def by_solver(study: xr.Dataset) -> Figure:
    """Fig. 8: each solver with each grid, for the priors that matter."""
    priors = [prior for prior in ("standard", "warm") if prior in _priors(study)] or _priors(study)[:2]
    pairs = list(dict.fromkeys(zip(study["solver"].values, study["grid_in_time"].values, strict=True)))
    figure = Figure(figsize=(12, 3.6 * len(priors)), layout="constrained")
    axes = figure.subplots(len(priors), 2, squeeze=False)
    for row, prior in zip(axes, priors, strict=True):
        mine = study.isel(setting=(study["prior"] == prior).values).sortby("nfe")
        for axis, (name, label) in zip(row, LABELS[:2], strict=True):
            for number, (solver, grid) in enumerate(pair for pair in pairs if pair[0]):
                curve = mine.isel(setting=((mine["solver"] == solver) & (mine["grid_in_time"] == grid)).values)
                style = ("-", "--", ":", "-.")[number // 10 % 4]
                axis.plot(curve["nfe"], curve[name], linestyle=style, color=f"C{number % 10}", marker=".", label=f"{solver}, {grid}")
            best = _curve(study, prior)
            axis.scatter(best["nfe"], best[name], s=80, facecolors="none", edgecolors="black", label="taken as best")
            axis.set(xlabel="evaluations", ylabel=label, title=prior, yscale="log" if name == "power_deviation_6h" else "linear")
            axis.grid(alpha=0.3)
    axes[0, 1].legend(fontsize=7, ncols=2)
    return figure


def _saturation(saturates: dict[str, int | None], part: str) -> str:
    cells = "".join(f"<tr><td>{html.escape(prior)}</td><td>{nfe or 'no number is both'}</td></tr>" for prior, nfe in saturates.items())
    note = "The smallest number whose CRPS is within 1 % and whose spectrum's deviation is within 5 % of the prior's best"
    note = f"{note}, on the {part} part."
    return f"<h2>Saturates at</h2><table><tr><th>prior</th><th>evaluations</th></tr>{cells}</table><p class=note>{note}</p>"


def _table(study: xr.Dataset) -> str:
    def cell(setting: xr.Dataset, name: str, digits: int, factor: float = 1) -> str:
        if name not in setting or not np.isfinite(setting[name].item()):
            return "<td></td>"
        text = f"{factor * setting[name].item():.{digits}f}"
        if f"{name}_interval" in setting:
            low, high = factor * setting[f"{name}_interval"].values
            text += f" [{low:.{digits}f}, {high:.{digits}f}]"
        return f"<td>{text}</td>"

    columns = (
        *([("CRPS 6 h, validation", "crps_6h_validation", 4, 1)] if "crps_6h_validation" in study else []),
        ("CRPS 6 h", "crps_6h", 4, 1),
        ("gain %", "crps_gain_6h", 2, 100),
        ("over features-only", "crps_gain_features_6h", 2, 100),
        ("spread/skill", "spread_skill_6h", 3, 1),
        ("spectrum", "power_deviation_6h", 3, 1),
        ("gain %", "power_deviation_gain_6h", 0, 100),
    )
    names = ("prior", "solver", "times", "warmth", "evaluations", "cost", *(column[0] for column in columns), "diverged")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = []
    for index in range(study.sizes["setting"]):
        setting = study.isel(setting=index)
        values = [html.escape(str(setting[name].item())) for name in ("prior", "solver", "grid_in_time", "warmth", "nfe")]
        cells = "".join(f"<td>{value}</td>" for value in [*values, f"{setting['cost'].item():.2f}"])
        cells += "".join(cell(setting, *column[1:]) for column in columns) + f"<td>{diverged(setting)}</td>"
        body.append(f"<tr{' style=font-weight:600' if setting['best'].item() else ''}>{cells}</tr>")
    gain = (
        f"<p class=note>Bold: best of its prior and evaluations, chosen on {html.escape(study.attrs['chosen_on'])}. Gain: over "
        f"{html.escape(study.attrs['reference'])}; over features-only: with as many evaluations. Diverged: members whose wind was not "
        "finite or beyond 120 m/s by then; where there are any, a setting has no score.</p>"
    )
    return f"<table><tr>{head}</tr>{''.join(body)}</table>{gain}"


def diverged(setting: xr.Dataset) -> str:
    """Where members of a setting left the physical range, in words; nothing if all stayed within it."""
    shares = [("validation, 6 h", setting["runaway_6h_validation"].item())] if "runaway_6h_validation" in setting else []
    shares.append(("6 h", setting["runaway_6h"].item()))
    for lead in setting["prediction_timedelta"].values if "runaway" in setting else ():
        shares.append((f"{int(lead / np.timedelta64(1, 'h'))} h", setting["runaway"].sel(prediction_timedelta=lead).item()))
    return ", ".join(f"{100 * share:.2g} % of members at {where}" for where, share in shares if share > 0)
