"""A place or a station where a forecast has no values is named, and one that it does not cover is refused, with the option that gave it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import wsdcast
from wsdcast.data.variables import DEFAULT
from wsdcast.data.winds import array_attributes

SEA = "sea_surface_temperature"
START, LEADS = np.datetime64("2026-11-28", "ns"), np.array([6, 12]) * np.timedelta64(1, "h").astype("timedelta64[ns]")
PLACES = {"Vienna": (48, 14), "Ljubljana": (46, 18), "Nowhere": (44, 4), "Sea": (46, 4)}


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> Path:
    """A forecast of a region without values in the south-west, and without sea surface temperature in the east."""
    path = tmp_path_factory.mktemp("masked") / "f.zarr"
    latitude, longitude = np.arange(42.0, 52, 2), np.arange(0.0, 22, 2)
    coordinates = {"time": [START], "number": [0, 1, 2], "prediction_timedelta": LEADS, "latitude": latitude, "longitude": longitude}
    random, shape = np.random.default_rng(0), [len(axis) for axis in coordinates.values()]
    fields = {}
    for name, mean in {SEA: 285, **dict.fromkeys(DEFAULT, 0)}.items():
        values = random.normal(mean, 5, shape).astype(np.float32)
        values[..., :2, :4] = np.nan
        if name == SEA:
            values[..., 5:] = np.nan
        fields[name] = (tuple(coordinates), values, array_attributes(name))
    xr.Dataset(fields, coordinates).to_zarr(path, zarr_format=2, consolidated=True)
    return path


def test_places_without_values_are_named(forecast, tmp_path, monkeypatch):
    monkeypatch.setattr("wsdcast.output.products.write_plumes", lambda paths, *_: [path.touch() for path in paths])
    rows = "".join(f"{name},{latitude},{longitude}\n" for name, (latitude, longitude) in PLACES.items())
    (tmp_path / "places.csv").write_text(f"name,latitude,longitude\n{rows}")
    summary = wsdcast.products(forecast, tmp_path / "p.csv", at=tmp_path / "places.csv")
    assert summary.facts["no values"] == "at Vienna (sst), Ljubljana (sst), Nowhere: next to a point without any"
    table = pd.read_csv(tmp_path / "p.csv").set_index("name")
    has_values = table.assign(has=table["value"].notna() | (table["variable"] == "direction")).groupby(["name", "variable"])["has"]
    found = {key for key, known in has_values.all().items() if known}
    assert found - {(name, "direction") for name in PLACES} == {
        *((name, of) for name in ("Vienna", "Ljubljana", "Sea") for of in ("u", "v", "speed")),
        ("Sea", "sst"),
    }
    (tmp_path / "places.csv").write_text("name,latitude,longitude\nSea,46,4\n")
    assert "no values" not in wsdcast.products(forecast, tmp_path / "p.csv", at=tmp_path / "places.csv", overwrite=True).facts


def test_stations_without_values_and_outside_are_named(forecast, tmp_path):
    def written(places: dict[str, tuple[float, float]]) -> Path:
        rows = "".join(f"2026-11-28T06,{name},{latitude},{longitude},m/s,7\n" for name, (latitude, longitude) in places.items())
        (tmp_path / "stations.csv").write_text(f"time,station,latitude,longitude,units,speed\n{rows}")
        return tmp_path / "stations.csv"

    summary = wsdcast.score_stations(forecast, written(PLACES), tmp_path / "run")
    assert summary.facts["stations"] == "4, 3 pairs of a forecast and an observation; none at Nowhere"
    nowhere = {f"N{number}": (44, 4 + number / 10) for number in range(5)}
    summary = wsdcast.score_stations(forecast, written({"Sea": (46, 4)} | nowhere), tmp_path / "many")
    assert summary.facts["stations"].endswith("; none at N0, N1, N2, N3, N4")
    inside = xr.open_dataset(tmp_path / "run/station_scores.nc").sel(station="all stations")
    summary = wsdcast.score_stations(forecast, written(PLACES | {"Far": (48, 22)}), tmp_path / "far")
    assert summary.facts["stations"] == "5, 3 pairs of a forecast and an observation; outside the forecast: Far; none at Nowhere"
    with xr.open_dataset(tmp_path / "far/station_scores.nc") as scores:
        xr.testing.assert_identical(scores.sel(station="all stations").drop_attrs(), inside.drop_attrs())
    with pytest.raises(wsdcast.UserError, match=r"all lie outside of .*, whose grid is .*, latitudes 42 to 50 and longitudes 0 to 20"):
        wsdcast.score_stations(forecast, written({"Far": (48, 22)}), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
