"""The page of a forecast without truth: what is embedded, how large it is, and what the command makes of its inputs."""

from __future__ import annotations

import html
import json
import re
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import commands
import numpy as np
import pytest
import xarray as xr
from forecast_pages import CARD, FACTS, GRID, LEADS, forecast_of, speeds_of, wind_of, written
from report_pages import column_at, embedded, from_greenwich
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import PUBLIC
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.data.variables import DEFAULT
from wsdcast.report import shown_products
from wsdcast.report.forecast_page import write_forecast_page
from wsdcast.report.shown_products import packed, read_products
from wsdcast.runs.errors import UserError
from wsdcast.verification.thresholds import THRESHOLDS, threshold_in_words

LIMIT = 5_000_000


def unpacked(page: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the images of a page, (field, lead, row, column), from south to north and from 0 eastward.

    This undoes ``packed`` as the page does.
    """
    images = np.cumsum(embedded(page)["library"][0]["data"]["bytes"], dtype=np.uint8).reshape(shape)
    images[-len(QUANTILES) :] = np.cumsum(images[-len(QUANTILES) :], axis=0, dtype=np.uint8)
    return from_greenwich(images)


def units(page: str) -> dict[str, float]:
    """Return the values of one step of a byte: of quantiles, spread and initial analysis."""
    (plume,) = [each["args"] for each in embedded(page)["CustomJS"] if "plume" in each["args"]]
    hover = [each["args"]["unit"] for each in embedded(page)["CustomJSHover"] if "args" in each]
    return {"quantiles": plume["unit"], "probability": hover[0], "median": hover[1], "spread": hover[2], "initial": hover[-1]}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return written(tmp_path_factory.mktemp("page") / "forecast.html")


def test_embedded_values_are_those_of_numpy_to_the_stated_rounding(page):
    images = unpacked(page, (9, LEADS.size, *GRID.shape))[:, :, ::-1]  # from the north
    speed, unit = speeds_of(wind_of()), units(page)
    for number, threshold in enumerate(THRESHOLDS):
        np.testing.assert_allclose(images[number], 100 * (speed > threshold).mean(axis=0), atol=0.5)
    np.testing.assert_allclose(images[3] * unit["spread"], speed.std(axis=0, ddof=1), atol=0.501 * unit["spread"])
    quantiles = np.quantile(speed, QUANTILES, axis=0)
    np.testing.assert_allclose(images[4:] * unit["quantiles"], quantiles, atol=0.501 * unit["quantiles"])
    assert unit["quantiles"] == pytest.approx(max(0.1, quantiles.max() / 254))
    assert unit["spread"] == pytest.approx(max(0.05, speed.std(axis=0, ddof=1).max() / 254))
    said = re.search(r"Probabilities are rounded to 1 %, speeds to ([\d.]+) m/s, the spread to ([\d.]+) m/s\.", page)
    np.testing.assert_allclose([float(text) for text in said.groups()], [unit["quantiles"], unit["spread"]], rtol=0.05)


def test_the_first_maps_and_plume_are_of_the_middle_lead_time(page):
    models = embedded(page)
    shown, images, unit = models["maps"][0]["data"], unpacked(page, (9, LEADS.size, *GRID.shape)), units(page)
    middle = LEADS.size // 2
    for name, field in {"probability": 0, "median": 6, "spread": 3}.items():
        np.testing.assert_array_equal(from_greenwich(shown[name][0]), images[field, middle])
    np.testing.assert_allclose(
        from_greenwich(shown["initial"][0][::-1]) * unit["initial"], np.hypot(*wind_of(7)[0, 0]), atol=0.501 * unit["initial"]
    )
    assert models["lead"][0]["value"] == "18 h, valid 2026-11-28 18 UTC"
    place, plume = models["place"][0]["data"], models["plume"][0]["data"]
    row, column = np.abs(GRID.latitude - place["y"][0]).argmin(), column_at(place["x"][0])
    assert (GRID.latitude[row], GRID.longitude[column]) == (56.25, 337.5)
    assert place["x"][0] == -22.5
    # Rows are counted from the south, and columns from 180 W.
    assert place["point"][0] == (GRID.shape[0] - 1 - row) * GRID.shape[1] + column - 8
    expected = np.quantile(speeds_of(wind_of())[..., row, column], QUANTILES, axis=0)
    for share, values in zip(QUANTILES, expected, strict=True):
        np.testing.assert_allclose(plume[f"q{100 * share:.0f}"], values, atol=0.501 * unit["quantiles"])


def test_the_page_is_complete_and_loads_nothing(page):
    for words in (*FACTS, *FACTS.values(), "2026-11-28 06 UTC to 2026-11-29 06 UTC", "16x8", "10.8 m/s (Beaufort 6)"):
        assert words in page, words
    assert f"<pre class=card>{html.escape(CARD)}</pre>" in page
    assert "<script>alert" not in page
    assert "default-src 'none'" in page
    assert not re.search(r'<[^>]* (src|href)="?(?!data:)|@import', page.split("<script")[0])


def test_packed_images_are_unpacked_to_the_same_bytes():
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 5)).astype(np.uint8)
    images[5:, 1] = 255
    differences = packed(images)
    restored = np.cumsum(differences, dtype=np.uint8).reshape(images.shape)
    restored[-5:] = np.cumsum(restored[-5:], axis=0, dtype=np.uint8)
    np.testing.assert_array_equal(restored, images)
    assert differences[0] == images[0, 0, 0, 0]
    assert packed(np.full_like(images, 7)).tolist() == [7] + [0] * (5 * 60 - 1) + [249] + [0] * (4 * 60 - 1)


def test_a_stopped_member_counts_until_then(tmp_path):
    wind = wind_of()
    wind[2, 3:] = np.nan
    wind[:, :, :, 0, 0] = np.nan  # masked in all members
    page = written(tmp_path / "page.html", wind)
    images, unit = unpacked(page, (9, LEADS.size, *GRID.shape))[:, :, ::-1], units(page)["quantiles"]
    assert (images[..., 0, 0] == 255).all()
    assert (images[..., 1:, :] != 255).all()
    speed = speeds_of(wind)[..., 1:, :]
    np.testing.assert_allclose(images[6, :3, 1:] * unit, np.median(speed[:, :3], axis=0), atol=0.501 * unit)
    np.testing.assert_allclose(images[6, 3:, 1:] * unit, np.median(np.delete(speed, 2, axis=0)[:, 3:], axis=0), atol=0.501 * unit)
    words = embedded(page)["lead"][0]["categories"]
    assert [" 9 members left" in text for text in words] == [False, False, False, True, True]


def test_without_two_members_a_lead_time_has_no_values_and_without_any_there_is_no_page(tmp_path):
    wind = wind_of()
    wind[1:, 1:] = np.nan
    images = unpacked(written(tmp_path / "page.html", wind), (9, LEADS.size, *GRID.shape))
    assert (images[:, 1:] == 255).all()
    assert (images[:, 0] != 255).all()
    wind[1:] = np.nan
    with pytest.raises(UserError, match="no lead time with two or more members"):
        read_products(forecast_of(wind), 0, THRESHOLDS)
    with pytest.raises(UserError, match="has one member"):
        read_products(forecast_of(wind[:1]), 0, THRESHOLDS)


def test_points_are_left_out_if_the_page_would_be_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(shown_products, "LIBRARY_BYTES", 1200)
    page = written(tmp_path / "page.html")
    stride = int(re.search(r"To keep the page small, it has one of (\d) by \1 points of the grid", page)[1])
    (products,) = read_products(forecast_of(wind_of()), 0, THRESHOLDS)
    assert stride == 2
    np.testing.assert_array_equal(products.columns, [8, 10, 12, 14, 0, 2, 4, 6])
    assert set(np.diff(products.rows)) == {stride}
    median = np.median(speeds_of(wind_of()), axis=0)[:, products.rows[:, None], products.columns]
    np.testing.assert_allclose(products.quantiles[2], median, rtol=1e-6)
    assert len(packed(products.images)) == 9 * LEADS.size * products.rows.size * products.columns.size
    monkeypatch.setattr(shown_products, "LARGEST_RATIO", 1)
    np.testing.assert_array_equal(read_products(forecast_of(wind_of()), 0, THRESHOLDS)[0].columns, [8, 11, 14, 1, 4, 7])


def smooth_wind(grid: Grid, leads: int, members: int) -> np.ndarray:
    """Return random wind whose power falls with wavenumber as that of real wind: members around a common state."""
    rows, columns = grid.shape
    wavenumber = np.hypot(np.fft.fftfreq(rows)[:, None] * rows, np.fft.rfftfreq(columns) * columns).clip(1)
    noise = np.random.default_rng(0).standard_normal((members + 1, leads, 2, rows, columns), dtype=np.float32)
    fields = np.fft.irfft2(np.fft.rfft2(noise) * wavenumber**-1.75, s=(rows, columns))
    fields *= 6 / fields.std()
    return (fields[0] + fields[1:]).astype(np.float32)


@pytest.mark.parametrize(("kind", "whole"), [("smooth", True), ("noise", False)])
def test_the_page_has_less_than_5_mb(kind, whole, tmp_path):
    grid = Grid.regular("240x121")
    wind = smooth_wind(grid, 20, 4) if kind == "smooth" else np.random.default_rng(0).normal(0, 9, (4, 20, 2, *grid.shape))
    leads = np.arange(1, 21) * np.timedelta64(6, "h")
    rounding = write_forecast_page(
        tmp_path / "page.html", forecast_of(wind.astype(np.float32), grid, leads), initial=wind[0, 0], facts=FACTS, card=CARD
    )
    assert (tmp_path / "page.html").stat().st_size < LIMIT
    assert ("To keep the page small" not in rounding) == whole


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (10.8, "10.8 m/s (Beaufort 6)"),
        (32.7, "32.7 m/s (Beaufort 12)"),
        (15.0, "15 m/s"),
        (25 * 1852 / 3600, "12.86 m/s (25 kn)"),
        (0.3, "0.3 m/s (Beaufort 1)"),
    ],
)
def test_thresholds_in_words(threshold, words):
    assert threshold_in_words(threshold) == words


# The command.


def coast(page: str) -> list:
    """Return the coastlines of a page: the longitudes of each line."""
    (lines,) = {
        id(data): data["x"]
        for each in embedded(page)["ColumnDataSource"]
        if set(data := each["data"]) == {"x", "y"} and (not len(data["x"]) or np.ndim(data["x"][0]))
    }.values()
    return lines


def stored(directory: Path, wind: np.ndarray, **attributes: Any) -> Path:
    """Write a store of forecasts."""
    store = forecast_of(wind).channels.assign_attrs(attributes)
    store.to_zarr(directory / "forecast.zarr", zarr_format=2, consolidated=True)
    return directory / "forecast.zarr"


def states(path: Path, times: list[str], grid: Grid = GRID, **attributes: str) -> Path:
    """Write initial states, of each time another one."""
    values = wind_of(7, len(times), grid)[0]
    coordinates = {"time": np.array(times, "datetime64[ns]"), "latitude": grid.latitude, "longitude": grid.longitude}
    wind = {name: (tuple(coordinates), values[:, channel], {"units": "m s-1"}) for channel, name in enumerate(DEFAULT)}
    xr.Dataset(wind, coordinates, attributes).to_netcdf(path)
    return path


refused = partial(commands.refused, "forecast-page")


STAMP = {
    "recipe": {"name": "mine", "data": {"source": "wb2"}, "generator": {"prior": "warm"}, "rollout": {"nfe": 10}},
    "hash": "",
    "inputs": "",
    "id": "",
}


def test_the_command_finds_what_lies_next_to_the_store(tmp_path):
    stored(tmp_path, wind_of(), wsdcast=json.dumps(STAMP), license="CC-BY-4.0")
    (tmp_path / "model-card.md").write_text("# a card\n\n- Trained on: <wind>\n")
    origin = {
        "model": "mine.wsd",
        "sha256_of_the_model": "0123",
        "initial_states": "analyses of ifs",
        "cycle": "the newest",
        "attribution": "of ECMWF",
    }
    states(tmp_path / "initial_states.nc", ["2026-11-27T18", "2026-11-28T00"], **origin)
    result = CliRunner().invoke(app, ["forecast-page", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert list(summary["written"]) == [str(tmp_path / "forecast.html")]
    assert summary["facts"]["initial time"] == "2026-11-28 00 UTC"
    page = (tmp_path / "forecast.html").read_text()
    facts = {"source": "analyses of ifs", "cycle": "the newest", "model": "mine.wsd", "sha256 of the model": "0123"}
    facts |= {"license": "CC-BY-4.0", "attribution": "of ECMWF", "evaluations": "10 of the network per sample"}
    for name, fact in facts.items():
        assert f"<dt>{name}</dt><dd>{fact}</dd>" in page
    assert "- Trained on: &lt;wind&gt;" in page
    initial = from_greenwich(embedded(page)["maps"][0]["data"]["initial"][0][::-1]) * units(page)["initial"]
    np.testing.assert_allclose(initial, np.hypot(*wind_of(7, 2)[0, 1]), atol=0.501 * units(page)["initial"])
    assert len(coast(page)) > 100


def test_only_the_earth_has_coastlines(tmp_path):
    recipe = STAMP["recipe"] | {"data": {"source": "planet"}}
    forecast = stored(tmp_path, wind_of(), wsdcast=json.dumps(STAMP | {"recipe": recipe}))
    wsdcast.forecast_page(forecast)
    assert coast((tmp_path / "forecast.html").read_text()) == []


def test_the_page_of_a_run_has_its_own_analysis_and_model_card(rolled_out, tmp_path):
    summary = wsdcast.forecast_page(rolled_out / "run", tmp_path / "page.html")
    assert (summary.facts["initial analysis"], summary.facts["model card"]) == ("shown", "shown")
    page = (tmp_path / "page.html").read_text()
    with (
        xr.open_zarr(rolled_out / "run/analysis.zarr") as analysis,
        xr.open_zarr(rolled_out / "run/forecast.zarr", decode_timedelta=True) as forecast,
    ):
        state = analysis.sel(time=forecast["time"].values[0])
        speed = np.hypot(*(state[name].values for name in DEFAULT))
    initial = from_greenwich(embedded(page)["maps"][0]["data"]["initial"][0][::-1]) * units(page)["initial"]
    np.testing.assert_allclose(initial, speed, atol=0.501 * units(page)["initial"])
    assert "<pre class=card># tiny" in page
    assert "- Trained on: planet, 2000-01-01T00 to" in page


def test_a_store_alone_has_a_page_without_initial_analysis(tmp_path):
    forecast = stored(tmp_path, wind_of())
    states(tmp_path / "initial_states.nc", ["2000-01-01"])  # of another forecast
    summary = wsdcast.forecast_page(forecast, tmp_path / "page.html")
    assert summary.facts["initial analysis"] == summary.facts["model card"] == "none"
    assert list(embedded((tmp_path / "page.html").read_text())["maps"][0]["data"]) == ["probability", "median", "spread"]


def test_an_initial_analysis_on_another_grid_is_shown_at_the_nearest_points(tmp_path):
    finer = Grid.regular("32x16")
    forecast = stored(tmp_path, wind_of())
    given = states(tmp_path / "fine.nc", ["2026-11-28"], finer)
    summary = wsdcast.forecast_page(forecast, initial=given)
    page = (tmp_path / "forecast.html").read_text()
    assert "The initial analysis is on another grid" in summary.facts["rounding"]
    image, unit = from_greenwich(embedded(page)["maps"][0]["data"]["initial"][0][::-1]), units(page)["initial"]
    speed = np.hypot(*wind_of(7, 1, finer)[0, 0])
    at = finer.latitude[np.abs(finer.latitude - GRID.latitude[3]).argmin()], 45.0
    row, column = np.flatnonzero(finer.latitude == at[0])[0], np.flatnonzero(finer.longitude == at[1])[0]
    assert image[3, 2] * unit == pytest.approx(speed[row, column], abs=0.501 * unit)


def test_any_initial_time_of_a_store_can_be_chosen(tmp_path):
    first, second = (forecast_of(wind_of(seed)).channels for seed in (1, 2))
    both = xr.concat([first, second.assign_coords(time=second["time"] + np.timedelta64(12, "h"))], "time")
    both.to_zarr(tmp_path / "other.zarr", zarr_format=2, consolidated=True)
    wsdcast.forecast_page(tmp_path / "other.zarr", start="2026-11-28T12")
    page = (tmp_path / "forecast.html").read_text()
    assert "Wind forecast from 2026-11-28 12 UTC" in page
    images = unpacked(page, (9, LEADS.size, *GRID.shape))[:, :, ::-1]
    np.testing.assert_allclose(images[0], 100 * (speeds_of(wind_of(2)) > 10.8).mean(axis=0), atol=0.5)
    message = refused(tmp_path / "other.zarr", "--start", "2026-11-29")
    assert "whose nearest initial time is 2026-11-28T12" in message


def test_any_thresholds_can_be_chosen(tmp_path):
    forecast = stored(tmp_path, wind_of())
    result = CliRunner().invoke(app, ["forecast-page", str(forecast), "--thresholds", "25kn,5"])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "forecast.html").read_text()
    images = unpacked(page, (8, LEADS.size, *GRID.shape))[:, :, ::-1]
    for image, threshold in zip(images, (5, 25 * 1852 / 3600), strict=False):
        np.testing.assert_allclose(image, 100 * (speeds_of(wind_of()) > threshold).mean(axis=0), atol=0.5)


def test_mistakes_are_one_line(tmp_path):
    forecast = stored(tmp_path, wind_of())
    assert "--thresholds" in refused(forecast, "--thresholds", "strong")
    assert "no such forecast" in refused(tmp_path / "nothing.zarr")
    assert "no state at the initial time 2026-11-28 00 UTC" in refused(forecast, "--initial", states(tmp_path / "old.nc", ["2000-01-01"]))
    assert "expected time, latitude and longitude alone" in refused(forecast, "--initial", forecast)
    assert "is a directory" in refused(forecast, "--out", tmp_path)
    assert "has one member" in refused(stored(tmp_path / "one", wind_of()[:1]))
    statistics = forecast_of(wind_of()).channels.rename(number="statistic")
    statistics.to_zarr(tmp_path / "statistics.zarr", zarr_format=2, consolidated=True)
    assert "only statistics over members" in refused(tmp_path / "statistics.zarr")
    assert not list(tmp_path.rglob("*.html"))


def test_a_public_forecast_has_nothing_to_do_with_the_working_directory(tmp_path, monkeypatch):
    store = stored(tmp_path / "far", wind_of(), license="CC-BY-4.0")
    monkeypatch.setitem(PUBLIC, "wb2:made", store.as_uri())
    monkeypatch.chdir(tmp_path)
    Path("model-card.md").write_text("# of another forecast")
    states(Path("initial_states.nc"), ["2026-11-28"])
    summary = wsdcast.forecast_page("wb2:made")
    assert list(summary.written) == ["forecast.html"]
    assert summary.facts["initial analysis"] == summary.facts["model card"] == "none"
    assert "<dt>license</dt><dd>CC-BY-4.0</dd>" in Path("forecast.html").read_text()


def test_the_initial_analysis_may_be_whatever_prepare_reads(tmp_path):
    """In one of several files, and as from the Climate Data Store: by valid time, zipped, u and v in separate files; here in knots too."""
    forecast = stored(tmp_path, wind_of())
    (tmp_path / "analyses").mkdir()
    states(tmp_path / "analyses/1.nc", ["2026-11-27"])
    second = states(tmp_path / "2.nc", ["2026-11-27T18", "2026-11-28"])
    with xr.open_dataset(second) as wind, ZipFile(tmp_path / "analyses/2.nc", "w") as archive:
        for name in DEFAULT:
            array = (wind[name] * 3600 / 1852).assign_attrs(units="knots").rename(time="valid_time")
            array.to_netcdf(tmp_path / f"{name}.nc")
            archive.write(tmp_path / f"{name}.nc", f"{name}.nc")
    assert wsdcast.forecast_page(forecast, initial=tmp_path / "analyses").facts["initial analysis"] == "shown"
    page = (tmp_path / "forecast.html").read_text()
    initial = from_greenwich(embedded(page)["maps"][0]["data"]["initial"][0][::-1]) * units(page)["initial"]
    np.testing.assert_allclose(initial, np.hypot(*wind_of(7, 2)[0, 1]), atol=0.501 * units(page)["initial"])
