"""The page of a forecast of several variables: maps and plumes of each, in its units, and a selector."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from forecast_pages import LEADS, START
from report_pages import GRID, column_at, embedded, from_greenwich

import wsdcast
from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.data.variables import DEFAULT
from wsdcast.data.winds import array_attributes
from wsdcast.report import shown_products
from wsdcast.report.forecast_page import write_forecast_page
from wsdcast.verification.thresholds import THRESHOLDS

UPPER = ("u_component_of_wind@250", "v_component_of_wind@250")
SCALES = {"2m_temperature": (280, 8), DEFAULT[0]: (2, 6), "geopotential@500": (55_000, 900), DEFAULT[1]: (0, 6)}
SCALES |= {UPPER[0]: (10, 20), UPPER[1]: (0, 20)}
"""Mean and standard deviation of each channel."""


def fields(seed: int = 0, members: int = 8, leads: int = LEADS.size) -> dict[str, np.ndarray]:
    """Random members of each channel, (member, lead, latitude, longitude)."""
    random = np.random.default_rng(seed)
    return {name: random.normal(mean, std, (members, leads, *GRID.shape)).astype(np.float32) for name, (mean, std) in SCALES.items()}


def forecast_of(channels: dict[str, np.ndarray]) -> StoredForecast:
    coordinates = {"time": [START], "number": np.arange(8), "prediction_timedelta": LEADS}
    coordinates |= {"latitude": GRID.latitude, "longitude": GRID.longitude}
    arrays = {name: (tuple(coordinates), values[None], array_attributes(name)) for name, values in channels.items()}
    return StoredForecast("somebody's", xr.Dataset(arrays, coordinates), GRID, None)


def shown(channels: dict[str, np.ndarray]) -> list[tuple[np.ndarray, str, int]]:
    """What is shown of the channels: values, units, and the number of thresholds, in the order of the page."""
    found = []
    if DEFAULT[0] in channels:
        found.append((np.hypot(*(channels[name] for name in DEFAULT)), "m/s", len(THRESHOLDS)))
    if UPPER[0] in channels:
        found.append((np.hypot(*(channels[name] for name in UPPER)), "m/s", 0))
    return [*found, (channels["2m_temperature"] - 273.15, "°C", 0), (channels["geopotential@500"] / 9.80665, "gpm", 0)]


@pytest.mark.parametrize("without", [(), DEFAULT], ids=["with 10 m wind", "without"])
def test_every_variable_has_maps_and_plumes_to_the_stated_rounding(tmp_path, without):
    channels = {name: values for name, values in fields().items() if name not in without}
    initial = {name: values[0, 0] for name, values in fields(7, 1, 1).items() if name not in without}
    initial["geopotential@500"] = np.full(GRID.shape, np.nan)
    initial["2m_temperature"][0, 0] = 200  # lower than all members, so that the scale begins there
    said = write_forecast_page(tmp_path / "p.html", forecast_of(channels), initial=np.stack([*initial.values()]), facts={})
    assert said == "said on the page, for each variable"
    page = (tmp_path / "p.html").read_text()
    assert "<h1>Forecast from 2026-11-28 00 UTC</h1>" in page
    labels = re.findall(r"<option value=\d>([^<]*)</option>", page)
    expected = ["10 m wind speed", "wind speed at 250 hPa", "2 m air temperature", "geopotential height at 500 hPa"][bool(without) :]
    assert labels == expected
    assert page.count("<article") == len(labels)
    models = embedded(page)
    plumes = [each["args"] for each in models["CustomJS"] if "plume" in each["args"]]
    assert len(models["library"]) == len(plumes) == len(models["maps"]) == len(models["plume"]) == len(labels)
    assert len(models.get("threshold", [])) == (not without)
    roundings = re.findall(
        r"(\w+) (?:are rounded to 1 %, speeds|are rounded) to ([\d.e+]+) ([^,]*), the spread to ([\d.e+]+) (.*?)\.<", page
    )
    for number, (values, units, thresholds) in enumerate(shown(channels)):
        unit, base = plumes[number]["unit"], plumes[number]["base"]
        packed = models["library"][number]["data"]["bytes"]
        images = np.cumsum(packed, dtype=np.uint8).reshape(thresholds + 6, LEADS.size, *GRID.shape)
        images[-5:] = np.cumsum(images[-5:], axis=0, dtype=np.uint8)
        images = from_greenwich(images[:, :, ::-1]).astype(float)
        tolerance = 0.501 * unit + 1e-6 * np.abs(values).max()
        np.testing.assert_allclose(images[-5:] * unit + base, np.quantile(values, QUANTILES, axis=0), atol=tolerance)
        for image, threshold in zip(images[:thresholds], THRESHOLDS, strict=False):
            np.testing.assert_allclose(image, 100 * (values > threshold).mean(axis=0), atol=0.5)
        assert (roundings[number][2], roundings[number][4]) == (units, {"°C": "K"}.get(units, units))
        assert float(roundings[number][1]) == pytest.approx(unit, rel=0.3)
        spread = values.std(axis=0, ddof=1)
        spread_unit = float(roundings[number][3])
        np.testing.assert_allclose(images[thresholds] * spread_unit, spread, rtol=0.06, atol=spread_unit)
        names = {"median", "spread"} | ({"probability"} if thresholds else set()) | ({"initial"} if units != "gpm" else set())
        assert set(models["maps"][number]["data"]) == names
        plume, place = models["plume"][number]["data"], models["place"][number]["data"]
        at = np.abs(GRID.latitude - place["y"][0]).argmin(), column_at(place["x"][0])
        np.testing.assert_allclose(plume["q90"], np.quantile(values[:, :, at[0], at[1]], 0.9, axis=0), atol=tolerance)
        if units == "°C":
            assert base == pytest.approx(200 - 273.15)
            image = from_greenwich(models["maps"][number]["data"]["initial"][0][::-1])
            assert image[0, 0] == 0
            hover = [each["args"] for each in models["CustomJSHover"] if each.get("args", {}).get("symbol") == "°C"]
            of_initial = hover[-1]
            np.testing.assert_allclose(
                image * of_initial["unit"] + of_initial["base"], initial["2m_temperature"] - 273.15, atol=0.501 * of_initial["unit"]
            )


def test_a_single_variable_has_no_selector(tmp_path):
    channels = {"2m_temperature": fields()["2m_temperature"]}
    said = write_forecast_page(tmp_path / "p.html", forecast_of(channels), facts={})
    assert re.fullmatch(r"Values are rounded to [\d.]+ °C, the spread to [\d.]+ K\.", said)
    page = (tmp_path / "p.html").read_text()
    assert "<article" not in page
    assert "<option" not in page
    assert "2 m air temperature. Choose a place" in page


def test_many_variables_share_the_room(tmp_path, monkeypatch):
    """Four subjects have four times the room of one, and six not more."""
    channels = {f"temperature@{level}": fields()["2m_temperature"] for level in (100, 200, 300, 400, 500, 600)}
    monkeypatch.setattr(shown_products, "LIBRARY_BYTES", 1000)
    monkeypatch.setattr(shown_products, "zlib", SimpleNamespace(compress=lambda data, level: data))
    for count in (4, 6):
        chosen = dict(list(channels.items())[:count])
        products = shown_products.read_products(forecast_of(chosen), 0, THRESHOLDS)
        sizes = {each.rows.size * each.columns.size for each in products}
        assert len(products) == count
        assert sizes == ({4 * 8} if count == 4 else {3 * 6})  # every second point, and every third


def test_the_command_shows_what_the_initial_states_have(tmp_path):
    forecast = forecast_of(fields())
    forecast.channels.to_zarr(tmp_path / "forecast.zarr", zarr_format=2, consolidated=True)
    state = forecast.channels[["2m_temperature", *DEFAULT]].isel(number=0, prediction_timedelta=0, drop=True)
    state.to_netcdf(tmp_path / "initial_states.nc")
    summary = wsdcast.forecast_page(tmp_path)
    assert summary.facts["initial analysis"] == "shown"
    maps = [list(each["data"]) for each in embedded((tmp_path / "forecast.html").read_text())["maps"]]
    assert ["initial" in names for names in maps] == [True, False, True, False]


def test_thresholds_of_a_forecast_without_10_m_wind_are_refused(tmp_path):
    forecast_of({"2m_temperature": fields()["2m_temperature"]}).channels.to_zarr(tmp_path / "forecast.zarr", zarr_format=2)
    with pytest.raises(wsdcast.UserError, match=r"--thresholds is about the 10 m wind, which .* does not have"):
        wsdcast.forecast_page(tmp_path, thresholds=["25kn"])
    assert not (tmp_path / "forecast.html").exists()
