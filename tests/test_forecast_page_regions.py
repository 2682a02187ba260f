"""The page of a forecast of a region: it shows the region's points, at their coordinates, and knows where the region ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import refused
from forecast_pages import LEADS, START, speeds_of
from report_pages import embedded

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.data.variables import DEFAULT
from wsdcast.output.fields import open_fields
from wsdcast.report import shown_products
from wsdcast.report.shown_products import read_products
from wsdcast.verification.thresholds import THRESHOLDS

REGIONS = {
    "across 180 degrees": (np.arange(40.0, 19, -5), np.arange(165.0, 206, 5)),
    "fine": (np.arange(55.0, 46.9, -0.25), np.arange(5.0, 16.1, 0.25)),
    "a band round the globe": (np.arange(20.0, -21, -5), np.arange(-180.0, 180, 5)),
    "one row": (np.array([50.0]), np.arange(5.0, 31, 5)),
}


def stored(path: Path, latitude: np.ndarray, longitude: np.ndarray, members: int = 6) -> np.ndarray:
    """Write a forecast of a region, longitudes from 0 eastward as others have them, and return its speeds, from west to east."""
    wind = np.random.default_rng(0).normal(0, 7, (members, LEADS.size, 2, latitude.size, longitude.size)).astype(np.float32)
    coordinates = {"time": [START], "number": np.arange(members), "prediction_timedelta": LEADS}
    coordinates |= {"latitude": latitude, "longitude": longitude % 360}
    fields = {name: (tuple(coordinates), wind[None, :, :, channel], {"units": "m s-1"}) for channel, name in enumerate(DEFAULT)}
    xr.Dataset(fields, coordinates).sortby(["latitude", "longitude"]).to_zarr(path, zarr_format=2, consolidated=True)
    return speeds_of(wind)


def analysis(path: Path, grid: Grid) -> np.ndarray:
    """Write an analysis of the globe, and return its speeds."""
    u, v = np.random.default_rng(1).uniform(0, 20, (2, *grid.shape)).astype(np.float32)
    wind = {name: (("time", "latitude", "longitude"), field[None], {"units": "m s-1"}) for name, field in zip(DEFAULT, (u, v), strict=True)}
    xr.Dataset(wind, {"time": [START], "latitude": grid.latitude, "longitude": grid.longitude}).to_netcdf(path)
    return np.hypot(u, v)


@pytest.mark.parametrize("region", REGIONS)
def test_the_page_shows_the_points_of_the_region_where_they_are(region, tmp_path):
    latitude, longitude = REGIONS[region]
    speeds, grid = stored(tmp_path / "f.zarr", latitude, longitude), Grid.regular("1440x721" if region == "fine" else "72x37")
    at_initial = analysis(tmp_path / "a.nc", grid)[np.ix_(*grid.nearest(latitude, longitude))]
    summary = wsdcast.forecast_page(tmp_path / "f.zarr", tmp_path / "page.html", initial=tmp_path / "a.nc")
    assert summary.facts["grid"].startswith(f"{longitude.size}x{latitude.size}, latitudes {latitude[-1]:g} to {latitude[0]:g} and ")
    assert "grid" not in summary.facts["rounding"]  # neither is a point left out, nor is the analysis between the points
    models = embedded((tmp_path / "page.html").read_text())

    (plume,) = [each["args"] for each in models["CustomJS"] if "plume" in each["args"]]
    images = np.cumsum(models["library"][0]["data"]["bytes"], dtype=np.uint8).reshape(9, LEADS.size, latitude.size, longitude.size)
    images[-5:] = np.cumsum(images[-5:], axis=0, dtype=np.uint8)
    np.testing.assert_allclose(images[-5:, :, ::-1] * plume["unit"], np.quantile(speeds, QUANTILES, axis=0), atol=0.501 * plume["unit"])
    unit = [each["args"]["unit"] for each in models["CustomJSHover"] if "args" in each][-1]
    np.testing.assert_allclose(models["maps"][0]["data"]["initial"][0][::-1] * unit, at_initial, atol=0.501 * unit)

    step = float(longitude[1] - longitude[0])
    box = {name: models["Image"][0][name]["value"] for name in ("x", "y", "dw", "dh")}
    assert box == pytest.approx(
        {"x": longitude[0] - step / 2, "y": latitude[-1] - step / 2, "dw": step * longitude.size, "dh": step * latitude.size}
    )
    view = [(each["start"], each["end"]) for each in models["Range1d"][:2]]
    for (low, high), begin, length in zip(view, (box["x"], box["y"]), (box["dw"], box["dh"]), strict=True):
        assert low <= begin
        assert begin + length <= high
    if region != "a band round the globe":
        assert view[0][1] - view[0][0] == pytest.approx(max(box["dw"], 2 * box["dh"]))
    choose = next(each["args"] for each in models["CustomJS"] if "covered" in each["args"])
    np.testing.assert_allclose(choose["latitudes"], latitude[::-1])
    np.testing.assert_allclose(choose["longitudes"], longitude)
    west, south, east, north = choose["region"]
    assert (west, south, east - west, north - south) == pytest.approx((box["x"], box["y"], box["dw"], box["dh"]))
    place, series = models["place"][0]["data"], models["plume"][0]["data"]
    row, column = np.abs(latitude - place["y"][0]).argmin(), np.abs(longitude - place["x"][0]).argmin()
    assert np.abs([row - (latitude.size - 1) / 2, column - (longitude.size - 1) / 2]).max() <= 1  # in the middle
    np.testing.assert_allclose(series["q50"], np.median(speeds[..., row, column], axis=0), atol=0.501 * plume["unit"])


def test_a_region_has_as_many_points_as_the_globe(tmp_path, monkeypatch):
    """Points were left out as if the page had the globe at the resolution of the region."""
    monkeypatch.setattr(shown_products, "LIBRARY_BYTES", 4000)
    counts = {}
    for name, latitude, longitude in (
        ("globe", np.arange(88.0, -89, -4), np.arange(0, 360, 5.0)),
        ("region", np.arange(60.0, 48.9, -0.25), np.arange(160.0, 195.9, 0.5)),
    ):
        stored(tmp_path / name, latitude, longitude)
        (products,) = read_products(open_fields(str(tmp_path / name)), 0, THRESHOLDS)
        counts[name] = products.rows.size * products.columns.size
        assert counts[name] < latitude.size * longitude.size
    assert counts["region"] == counts["globe"]


def test_points_that_a_map_cannot_show_are_refused(tmp_path):
    latitude, longitude = np.arange(60.0, 39, -5), np.array([0.0, 5, 10, 20, 25])
    for name, axes in (("longitudes", (latitude, longitude)), ("latitudes", (latitude[[0, 1, 3, 4]], latitude))):
        stored(tmp_path / name, *axes)
        assert f"its {name} are not equally spaced" in refused("forecast-page", tmp_path / name)
        assert not (tmp_path / "forecast.html").exists()
