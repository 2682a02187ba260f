"""The page of a weather study: the paper's Figs. 5 to 8 for one's own data, and the tables behind them."""

from __future__ import annotations

import html
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from wsdcast.report.shell import picture, write_plain_page
from wsdcast.study.figures import by_evaluations, by_solver, solvers_of
from wsdcast.study.page import note, of, saturation_table, score, settings_table
from wsdcast.study.weather_figures import by_lead, rolled_out, spectra

SCORES = ("crps_6h", "power_deviation_6h", "spread_skill_6h")
FORECAST_SCORES = {
    "crps": ("CRPS", 3),
    "spread_skill": ("spread/skill", 2),
    "power_deviation": ("spectrum", 3),
    "energy_score": ("energy score", 3),
    "kinetic_energy_deviation": ("kinetic energy", 3),
}
"""Scores of forecasts in the table by lead time, with their headings and digits."""
OF_SPECTRA = (
    "Few initial times inflate the deviation of a spectrum, for all settings alike, so small ones look more similar than they are. "
    "Deviations and their gains have no brackets, because those of bootstrap samples hardly ever hold a small one."
)
"""How to read the deviations of spectra."""


def write_study_page(path: Path, study: xr.Dataset, name: str, recipe: str, saturates: dict[str, int | None]) -> None:
    """Write the page of a study (``study.nc``), with the text of the recipe at the end.

    ``saturates`` has for each prior the smallest number of evaluations that is as good as any.
    """
    split = "validation" if "crps_6h_validation" in study else "test"
    parts = [
        note(
            f"{study.attrs['grid']} grid, {study.attrs['members']} members, {int(study['starts_6h'])} initial times of one step, training "
            f"seeds {', '.join(str(seed) for seed in study['seed'].values)}. Scores are means over seeds; bands and brackets hold 95 % of "
            f"bootstrap samples of initial times ({html.escape(study.attrs['intervals'])}). Recipe hash {study.attrs['recipe_hash']}; made "
            "by <code>wsdcast study nfe</code>."
        ),
        "<h2>One step of 6 h, by number of evaluations</h2>",
        picture(by_evaluations(study, SCORES), "Scores against evaluations, best solver of each prior"),
        note(
            "Each line shows the best solver, grid of flow times and warmth of a prior at each number of evaluations: the smallest "
            "deviation of the spectrum among the settings whose CRPS is within 1 % of the lowest. They were chosen on "
            f"{html.escape(study.attrs['chosen_on'])}; all scores in the figures are of the test split. Evaluations are those of the "
            f"generator; {html.escape(_moments_shares(study))}."
        ),
        note(f"All priors were trained at equal cost, counted in operations. The training times on this machine: {_training(study)}."),
        "<h2>Saturates at</h2>",
        saturation_table(saturates),
        note(
            "The smallest number whose CRPS is within 1 % and whose deviation of the spectrum is within 5 % of the prior's best, on the "
            f"{split} split."
        ),
        "<h2>The spectrum</h2>",
        picture(spectra(study), "Ratio of power by zonal wavenumber and evaluations"),
        note("Power of the members over power of the truth: white is right, blue too smooth, red too rough."),
    ]
    if "crps" in study and rolled_out(study).sizes["setting"]:
        parts += [
            f"<h2>Forecasts</h2>{picture(by_lead(study), 'CRPS by lead time')}",
            note(
                f"{int(study['starts'])} initial times. Left: the best setting of each prior at its largest number of evaluations. Others: "
                f"each prior by number of evaluations, over {html.escape(study.attrs['reference'])}."
            ),
            _forecast_table(study),
            note(
                f"Units of CRPS and energy score: {study.attrs.get('units', 'm/s')}. Spectrum and kinetic energy: mean |1 - ratio| of the "
                "energetic zonal wavenumbers and of the energetic degrees. An empty cell: a member left the physical range by then."
            ),
        ]
    if len(solvers_of(study)) > 1:
        sampled = study.isel(setting=(study["nfe"] > 0).values)
        parts += ["<h2>Solvers and grids of flow times</h2>", picture(by_solver(sampled, SCORES[:2]), "Scores by solver")]
    parts += ["<h2>All settings</h2>", _table(study)]
    write_plain_page(path, f"Function evaluations: {name}", parts, recipe)


def _moments_shares(study: xr.Dataset) -> str:
    """What a moments network adds to the evaluations, by the priors and variants that have one, in words."""
    priors: dict[str, dict[str, None]] = {}
    for prior, nfe, cost in zip(study["prior"].values, study["nfe"].values, study["cost"].values, strict=True):
        if nfe and cost > nfe:
            priors.setdefault(f"{cost - nfe:.2f}", {})[str(prior)] = None
    added = "; ".join(f"{share} to {', '.join(with_share)}" for share, with_share in priors.items())
    return f"a moments network adds {added}" if added else "no prior here has a moments network"


def _training(study: xr.Dataset) -> str:
    """The training time of each prior for which it is known."""
    pairs = zip(study["studied"].values, study["training_seconds"].values, strict=True)
    return ", ".join(f"{prior} {seconds:.0f} s" for prior, seconds in pairs if np.isfinite(seconds)) or "not known"


def _table(study: xr.Dataset) -> str:
    columns = [
        *((heading, of(name)) for heading, name in (("prior", "prior"), ("solver", "solver"), ("times", "grid_in_time"))),
        *((heading, of(name)) for heading, name in (("warmth", "warmth"), ("evaluations", "nfe"))),
        ("cost", score("cost", 2)),
        *([("CRPS 6 h, validation", score("crps_6h_validation", 4))] if "crps_6h_validation" in study else []),
        ("CRPS 6 h", score("crps_6h", 4)),
        ("CRPS gain %", score("crps_gain_6h", 2, 100)),
        ("CRPS gain over features-only %", score("crps_gain_features_6h", 2, 100)),
        ("spread/skill", score("spread_skill_6h", 3)),
        ("spectrum", score("power_deviation_6h", 3)),
        ("spectrum gain %", score("power_deviation_gain_6h", 0, 100)),
        ("diverged", diverged),
    ]
    of_few = html.escape(study.attrs.get("not_by_the_flow", ""))
    return settings_table(study, columns) + note(
        f"Bold: best of its prior and evaluations, chosen on {html.escape(study.attrs['chosen_on'])}. Gain: over "
        f"{html.escape(study.attrs['reference'])}; over features-only: with as many evaluations. {OF_SPECTRA} Diverged: members "
        "that were not finite or outside the physical range by then, of wind 120 m/s. A setting with such members has no score."
        + f" Not made by the flow but by networks of few evaluations, whose solver is called euler: {of_few}."
        * bool(of_few)
    )


def _forecast_table(study: xr.Dataset) -> str:
    """Scores of the forecasts by lead time, of the best settings that have them."""
    scored = study.isel(setting=(study["best"] & study["crps"].notnull().any("prediction_timedelta")).values)
    columns = [("prior", of("prior")), ("evaluations", of("nfe"))]
    scores = [(heading, name, digits) for name, (heading, digits) in FORECAST_SCORES.items() if name in study]
    table = scored[["best"]]
    for (heading, name, digits), lead in product(scores, study["prediction_timedelta"].values):
        label = f"{heading} {_hours(lead)} h"
        table[label] = scored[name].sel(prediction_timedelta=lead, drop=True)
        columns.append((label, score(label, digits)))
    return settings_table(table, columns)


def _hours(lead: np.timedelta64) -> int:
    return int(lead / np.timedelta64(1, "h"))


def diverged(setting: xr.Dataset) -> str:
    """The shares of members of a setting that left the physical range, by lead time, in words; empty if none did."""
    shares = [("validation, 6 h", setting["runaway_6h_validation"].item())] if "runaway_6h_validation" in setting else []
    shares.append(("6 h", setting["runaway_6h"].item()))
    for lead in setting["prediction_timedelta"].values if "runaway" in setting else ():
        shares.append((f"{_hours(lead)} h", setting["runaway"].sel(prediction_timedelta=lead).item()))
    return ", ".join(f"{100 * share:.2g} % of members at {where}" for where, share in shares if share > 0)
