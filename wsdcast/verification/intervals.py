"""Confidence intervals of scores over initial times, and skill against other forecasts of the same initial times."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from wsdcast.data.variables import DEFAULT, SPEED
from wsdcast.data.winds import units_of, winds_of
from wsdcast.verification.bootstrap import block_weights, interval, longest_lead, resampled
from wsdcast.verification.coordinates import with_attributes
from wsdcast.verification.kinetic_energy import kinetic_energy_metrics
from wsdcast.verification.metrics import (
    ABOUT,
    GLOBE,
    OF_VARIABLE,
    WITH_INTERVALS,
    metrics,
    scored_pairs,
    variables_of,
    with_both,
)
from wsdcast.verification.spectra import wavelength_of_degree, wavelength_of_wavenumber

BY_START = "_by_start"
"""Suffix of the names of the statistics by initial time in ``scores.nc``, which tells them from metrics."""
ENDINGS = {
    "": "",
    BY_START: ", of each initial time",
    "_interval": ", ends of the 95 % interval",
    "_skill": ", skill over the reference",
    "_skill_interval": ", ends of the 95 % interval of its skill over the reference",
}
"""Endings of the names of variables, and what they add to the long name."""
OF_SQUARE, OF_POWER = "square of the unit of the variable", "square of the unit of the variable times m"
ABOUT_STATISTICS = {
    "squared_error": ("squared error of the ensemble mean", OF_SQUARE),
    "squared_error_debiased": ("squared error of the ensemble mean less variance / members", OF_SQUARE),
    "variance": ("variance of the members", OF_SQUARE),
    "crps_gaussian": ("continuous ranked probability score of the predicted Gaussian, in closed form", OF_VARIABLE),
    "power": ("zonal power of the members", OF_POWER),
    "power_truth": ("zonal power of the truth", OF_POWER),
    "kinetic_energy": ("kinetic energy of the members by spherical-harmonic degree", "m2 s-2"),
    "kinetic_energy_truth": ("kinetic energy of the truth by spherical-harmonic degree", "m2 s-2"),
    "energetic_wavenumbers": ("number of energetic wavenumbers", "1"),
    "energetic_degrees": ("number of energetic degrees", "1"),
}
"""Long name and unit of what :func:`metrics` does not return."""
SKILFUL = ("crps_fair", "energy_score")
"""Metrics that have a skill, 1 - score / score of the reference."""


def scores_of(statistics: xr.Dataset) -> xr.Dataset:
    """Return the contents of ``scores.nc``: metrics with intervals and skill, and the statistics by initial time (suffix :data:`BY_START`).

    Args:
        statistics: of all forecasts, (forecast, time, prediction_timedelta, ...). Skill is computed over every forecast but the first.
            The attributes are copied to the result.
    """
    attributes = statistics.attrs
    scored, statistics = scored_pairs(statistics), with_both(statistics)
    names = [str(name) for name in statistics["forecast"].values]
    mean = statistics.mean("time")
    computed = metrics(mean)
    if "kinetic_energy" in mean:
        computed = computed.merge(kinetic_energy_metrics(mean))
    scores = with_intervals(computed, statistics, names[1:])
    scores = scores.merge(statistics.rename({name: f"{name}{BY_START}" for name in statistics.data_vars}), join="outer")
    variables = list(map(str, scores["variable"].values))
    for name, field in scores.data_vars.items():
        field.attrs = attributes_of(str(name), variables)
    if len(set(units := list(map(units_of, variables)))) > 1:
        scores = scores.assign_coords(units=("variable", units))
    scores["pairs"] = scored.sum("time").assign_attrs(long_name="starts with truth and with every forecast", units="1")
    for along, wavelength in (("wavenumber", wavelength_of_wavenumber), ("degree", wavelength_of_degree)):
        if along not in scores:
            continue  # without a wind there is no kinetic energy by degree
        scores = scores.assign_coords({f"wavelength_of_{along}": (along, wavelength(scores[along].values))})
    subject = "10 m wind ensemble forecasts" if variables_of(scores) == list(DEFAULT) else "ensemble forecasts"
    return with_attributes(scores).assign_attrs(Conventions="CF-1.11", title=f"scores of {subject}", **attributes)


def attributes_of(name: str, variables: Sequence[str]) -> dict[str, str]:
    """Return the long name and the units of a variable of ``scores.nc``.

    If the variables that were scored differ in units, so do these scores: they have no units, because CF knows no word for that, and the
    long name says that they are in the unit of the variable.

    Raises:
        KeyError: if neither :data:`ABOUT` nor :data:`ABOUT_STATISTICS` says what it is.
    """
    about = ABOUT | ABOUT_STATISTICS
    known = (ending for ending in ENDINGS if name.removesuffix(ending) in about and name.endswith(ending))
    if (ending := next(known, None)) is None:
        raise KeyError(f"{name} is neither in ABOUT nor in ABOUT_STATISTICS")
    long_name, unit = about[name.removesuffix(ending)]
    long_name += ENDINGS[ending]
    of_variable, *others = sorted(set(map(units_of, variables)))
    if "_skill" in ending or unit not in (OF_VARIABLE, OF_SQUARE, OF_POWER):
        return {"long_name": long_name, "units": "1" if "_skill" in ending else unit}
    if others:
        return {"long_name": f"{long_name}, in the {unit}"}
    square, power = ("m2 s-2", "m3 s-2") if of_variable == "m s-1" else (f"({of_variable})2", f"({of_variable})2 m")
    return {"long_name": long_name, "units": {OF_VARIABLE: of_variable, OF_SQUARE: square, OF_POWER: power}[unit]}


def with_intervals(scores: xr.Dataset, statistics: xr.Dataset, references: Sequence[str]) -> xr.Dataset:
    """Return the scores with their 95 % intervals (``_interval``, by ``bound``: low, high), and their ``_skill`` over each reference.

    Intervals hold 95 % of bootstrap samples of the initial times, drawn in blocks (:func:`block_weights`). All forecasts are drawn at the
    same initial times. Their errors have much in common, so the interval of a skill is narrower than those of the two scores suggest.
    Over a reference without error there is no skill, and no interval if a sample has none: both are NaN.

    Args:
        scores: metrics of the mean of ``statistics`` over time.
        statistics: (forecast, time, prediction_timedelta, ...).
        references: names of the forecasts over which skill is computed.
    """
    scored = scored_pairs(statistics)
    weights = block_weights(statistics["time"].values, longest_lead(scored))
    drawn = metrics(resampled(statistics[[name for name in WITH_INTERVALS if name in statistics]], weights, scored))
    result = scores.merge(xr.Dataset({f"{name}_interval": interval(values) for name, values in drawn.data_vars.items()}))
    if references:
        dimension = xr.IndexVariable("reference", list(references))
        for name in (name for name in SKILFUL if name in scores):

            def skill(values: xr.DataArray) -> xr.DataArray:
                over = xr.concat([values.sel(forecast=reference, drop=True) for reference in references], dim=dimension)
                return 1 - values / over.where(over > 0)

            result[f"{name}_skill"] = skill(scores[name])
            result[f"{name}_skill_interval"] = interval(skill(drawn[name]))
    return result


def as_table(scores: xr.Dataset) -> pd.DataFrame:
    """Return the rows of ``scores.csv``: one for each forecast, variable, region, lead time and metric, with value, interval and units."""
    axes = {"forecast", "variable", "region", "prediction_timedelta"}
    further_axes = ["lag", "threshold", "reference", "part"]
    rows, winds = [], winds_of(variables_of(scores))
    for name, field in scores.data_vars.items():
        if not axes - {"variable", "region"} <= set(field.dims) <= axes | {"wind"} | set(further_axes):
            continue
        interval_of = scores.get(f"{name}_interval")
        bounds = {} if interval_of is None else {bound: interval_of.sel(bound=bound, drop=True) for bound in ("low", "high")}
        table = xr.Dataset({"value": field} | bounds).to_dataframe(dim_order=list(field.dims)).reset_index()
        # A row has no column for lag, threshold, reference forecast or part of the kinetic energy: they become part of the metric's name.
        table["metric"] = name
        for column in (column for column in further_axes if column in table):
            table["metric"] += " " + table[column].astype(str)
        if "wind" in table:
            table = table.rename(columns={"wind": "variable"})
        elif "variable" not in table:  # other metrics without variable than the Brier score are of u and v of the only wind together
            table["variable"] = SPEED if name == "brier_score" else winds[0].vector
        unit = "1" if str(name).endswith("_skill") or str(name).startswith("energetic") else ABOUT.get(str(name), ("", OF_VARIABLE))[1]
        table["units"] = table["variable"].map(units_of) if unit == OF_VARIABLE else unit
        rows.append(table.dropna(subset="value"))
    table = pd.concat(rows)
    table["lead_hours"] = (table["prediction_timedelta"] / pd.Timedelta(hours=1)).astype(int)
    columns = ["forecast", "variable", "region", "lead_hours", "metric", "value", "low", "high", "units"]
    return table.reindex(columns=columns).fillna({"region": GLOBE})
