"""GRIB files: every value lies at the point that its message says, for any grid and any order of the points."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import wind_of

import wsdcast
from wsdcast.data.sources.file_lock import FILE_LOCK
from wsdcast.data.sources.layout import values_of
from wsdcast.data.sources.opening import open_dataset
from wsdcast.data.sources.record import open_record
from wsdcast.data.sources.space import order_of
from wsdcast.runs.errors import UserError

eccodes = pytest.importorskip("eccodes")

from grib_messages import COLUMNS, ROWS, message, sharing  # noqa: E402


def wind(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """A wind that is another one at every point."""
    return 20 * np.sin(np.deg2rad(latitude)) + 7 * np.cos(np.deg2rad(longitude)) + 3 * np.sin(np.deg2rad(longitude))


def read(path: Path) -> tuple[Any, np.ndarray]:
    u = wind_of(open_dataset(str(path)))["u"]
    return order_of(u.array)[2], values_of(u, np.array([0]))[0]


@pytest.mark.parametrize("kind", ["regular", "shifted", "gaussian", "from -180"])
@pytest.mark.parametrize(("edition", "westward", "northward"), [*itertools.product((1, 2), (0, 1), (0, 1))])
def test_rows_that_run_in_any_direction_give_the_same_field(tmp_path, edition, westward, northward, kind):
    latitude, longitude = np.linspace(90, -90, ROWS), 45.0 * np.arange(COLUMNS)
    keys: dict[str, Any] = {}
    if kind == "shifted":
        latitude, longitude = np.array([72.0, 36, 0, -36, -72]), longitude + 22.5
        keys["jDirectionIncrementInDegrees"] = 36
    if kind == "from -180":
        longitude = longitude - 180
    if kind == "gaussian":
        latitude = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(ROWS - 1)[0]))[::-1]
        keys = {"gridType": "regular_gg", "Nj": ROWS - 1, "N": (ROWS - 1) // 2}
    latitude, longitude = latitude[:: -1 if northward else 1], longitude[:: -1 if westward else 1]
    keys |= {"iScansNegatively": westward, "jScansPositively": northward}
    for name, axis in (("latitude", latitude), ("longitude", longitude if edition == 1 else longitude % 360)):
        keys |= {f"{name}OfFirstGridPointInDegrees": axis[0], f"{name}OfLastGridPointInDegrees": axis[-1]}
    (tmp_path / "wind").write_bytes(message(wind(latitude[:, None], longitude), edition, **keys))
    grid, values = read(tmp_path / "wind")
    np.testing.assert_allclose(grid.latitude, np.sort(latitude)[::-1], atol=2e-3)
    np.testing.assert_allclose(grid.longitude, np.sort(longitude % 360), atol=2e-3)
    np.testing.assert_allclose(values, wind(grid.latitude[:, None], grid.longitude[None, :]), atol=2e-3)


@pytest.mark.parametrize("flag", ["jPointsAreConsecutive", "alternativeRowScanning"])
def test_columns_and_rows_that_run_to_and_fro_are_refused(tmp_path, flag):
    """ecCodes gives no reliable coordinates for them, and no global analysis or forecast has them."""
    (tmp_path / "wind").write_bytes(message(np.arange(ROWS * COLUMNS), 2, **{flag: 1}))
    with pytest.raises(UserError, match=rf"wind: its fields are in an order that is not read \({flag}\)$"):
        open_dataset(str(tmp_path / "wind"))


def test_a_last_longitude_that_does_not_fit_the_step_is_ignored(tmp_path):
    """As NCEP's final analyses have it: the points go round the globe, the header ends them a step too early."""
    axes = np.linspace(90, -90, ROWS), 45.0 * np.arange(COLUMNS)
    content = message(wind(axes[0][:, None], axes[1]), 1, longitudeOfLastGridPointInDegrees=-45)
    (tmp_path / "wind").write_bytes(content)
    grid, values = read(tmp_path / "wind")
    np.testing.assert_array_equal(grid.longitude, axes[1])
    np.testing.assert_allclose(values, wind(*np.meshgrid(*axes, indexing="ij")), atol=1e-4)


def series(hours: list[int], names: tuple[str, ...] = ("10u", "10v"), **keys: Any) -> list[bytes]:
    field = np.arange(COLUMNS * ROWS) / 10
    return [
        message(field + hour + 100 * (name == "10v"), dataDate=20200101 + hour // 24, dataTime=100 * (hour % 24), shortName=name, **keys)
        for hour in hours
        for name in names
    ]


def problems(path: Path) -> str:
    return "; ".join(open_record(str(path), path.parent / "scratch").problems)


def test_two_messages_of_one_time_are_refused_like_doubled_times_elsewhere(tmp_path):
    (tmp_path / "wind").write_bytes(b"".join(series([0, 6, 12, 6])))
    assert "1 times occur twice, the first 2020-01-01T06" in problems(tmp_path / "wind")
    once = b"".join(series([0, 6, 12]))
    (tmp_path / "wind").write_bytes(once)
    assert not problems(tmp_path / "wind")


def test_one_component_that_lacks_a_time_is_named(tmp_path):
    (tmp_path / "wind").write_bytes(b"".join(series([0, 6, 12])[:-1]))
    assert "only one of u and v is there at 2020-01-01T12" in problems(tmp_path / "wind")


def test_both_editions_in_one_file_are_read(tmp_path):
    (tmp_path / "wind").write_bytes(b"".join(series([0, 6], edition=1) + series([12, 18], edition=2)))
    assert not problems(tmp_path / "wind")
    u = wind_of(open_dataset(str(tmp_path / "wind")))["u"]
    np.testing.assert_allclose(values_of(u, np.arange(4))[:, 0, 0], [0, 6, 12, 18], atol=1e-4)


@pytest.mark.parametrize("edition", [1, 2])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, edition):
    whole = b"".join(series([0, 6], edition=edition))
    size = len(whole) // 4
    (tmp_path / "wind").write_bytes(whole)
    assert not problems(tmp_path / "wind")
    for cut in [5, 20, size - 1, size + 3, size + 50, 2 * size + 7, 3 * size, 3 * size + 1, 3 * size + 30, 4 * size - 4, 4 * size - 1]:
        (tmp_path / "wind").write_bytes(whole[:cut])
        assert problems(tmp_path / "wind"), cut


def test_fields_that_share_a_message_are_read(tmp_path):
    """U and V as two fields of one GRIB 2 message, as NCEP writes them."""
    field = np.arange(COLUMNS * ROWS) / 10.0
    parts = [message(field), message(-field, shortName="10v")]
    (tmp_path / "wind").write_bytes(sharing(*parts))
    read = wind_of(open_dataset(str(tmp_path / "wind")))
    np.testing.assert_allclose(values_of(read["u"], np.array([0])).ravel(), field, atol=1e-4)
    np.testing.assert_allclose(values_of(read["v"], np.array([0])).ravel(), -field, atol=1e-4)


def test_points_without_a_value_are_missing(tmp_path):
    values = np.arange(COLUMNS * ROWS, dtype=float)
    values[3] = -999
    (tmp_path / "wind").write_bytes(message(values, bitmapPresent=1, missingValue=-999))
    _, result = read(tmp_path / "wind")
    assert np.isnan(result.ravel()[3])
    assert np.isfinite(np.delete(result.ravel(), 3)).all()


def test_a_constant_field_is_read(tmp_path):
    (tmp_path / "wind").write_bytes(message(np.full(COLUMNS * ROWS, 2.5)))
    assert (read(tmp_path / "wind")[1] == 2.5).all()


@pytest.mark.parametrize("sample", ["reduced_gg_sfc", "polar_stereographic_sfc"])
def test_other_grids_are_refused(tmp_path, sample):
    (tmp_path / "wind").write_bytes(message(None, 2, sample))
    with pytest.raises(UserError, match="wind: its fields are on no regular grid"):
        open_dataset(str(tmp_path / "wind"))


def test_two_grids_in_one_source_are_refused(tmp_path):
    shifted = {"longitudeOfFirstGridPointInDegrees": 22.5, "longitudeOfLastGridPointInDegrees": 337.5}
    other = message(np.zeros(COLUMNS * ROWS), dataTime=600, **shifted)
    (tmp_path / "wind").write_bytes(message(np.zeros(COLUMNS * ROWS)) + other)
    with pytest.raises(UserError, match="wind: its fields are on several grids"):
        open_dataset(str(tmp_path / "wind"))


@pytest.mark.parametrize(
    ("edition", "keys", "word"),
    [
        *((2, {"productDefinitionTemplateNumber": 2, "derivedForecast": kind}, "spread") for kind in (2, 3, 4, 5, 7, 10)),
        (2, {"productDefinitionTemplateNumber": 2, "derivedForecast": 8}, "minimum of members"),
        (2, {"productDefinitionTemplateNumber": 2, "derivedForecast": 9}, "maximum of members"),
        (2, {"setLocalDefinition": 1, "type": "es"}, "spread"),
        (1, {"setLocalDefinition": 1, "type": "es"}, "spread"),
    ],
)
def test_the_spread_or_an_extreme_of_an_ensemble_is_no_wind(tmp_path, edition, keys, word):
    field = np.arange(COLUMNS * ROWS) / 10.0
    spread = b"".join(message(field, edition, **keys, shortName=name) for name in ("10u", "10v"))
    (tmp_path / "wind").write_bytes(spread)
    found = problems(tmp_path / "wind")
    assert found.endswith(
        f"has none of 10 m wind u, 10 m wind v; looked for 10m_u_component_of_wind or u10 or 10u among 10u ({word}), 10v ({word})"
    )
    (tmp_path / "wind").write_bytes(spread + message(field + 1) + message(field + 1, shortName="10v"))
    np.testing.assert_allclose(values_of(wind_of(open_dataset(str(tmp_path / "wind")))["u"], np.array([0])).ravel(), field + 1, atol=1e-4)


def test_static_fields_of_grib_have_their_units(tmp_path):
    mask = np.random.default_rng(1).random((ROWS, COLUMNS))
    names = {"lsm": "land_sea_mask", "z": "geopotential_at_surface", "sdor": "standard_deviation_of_orography"}
    names |= {"slor": "slope_of_sub_gridscale_orography", "isor": "anisotropy_of_sub_gridscale_orography"}
    names |= {"anor": "angle_of_sub_gridscale_orography"}
    for edition in (1, 2):
        (tmp_path / "wind").write_bytes(b"".join([*series([0, 6]), *(message(mask, edition, shortName=name) for name in names)]))
        static = open_record(str(tmp_path / "wind"), tmp_path / "scratch").static
        assert list(static) == list(names.values())
        for field in static.values():
            np.testing.assert_allclose(field, mask, atol=1e-5)


def test_static_fields_of_grib_are_read_by_one_thread_at_a_time(tmp_path, monkeypatch):
    """ecCodes must not be called by two threads at once, and a cluster's worker with several threads opens a truth in each."""
    (tmp_path / "wind").write_bytes(b"".join([*series([0, 6]), message(np.ones((ROWS, COLUMNS)), shortName="lsm")]))
    real, alone = eccodes.codes_get_values, []
    monkeypatch.setattr(eccodes, "codes_get_values", lambda handle: alone.append(FILE_LOCK._is_owned()) or real(handle))
    assert list(open_record(str(tmp_path / "wind"), tmp_path / "scratch").static) == ["land_sea_mask"]
    assert alone == [True]


@pytest.mark.parametrize("kind", [0, 1, 6])
def test_the_mean_of_an_ensemble_is_wind(tmp_path, kind):
    field, keys = np.arange(COLUMNS * ROWS) / 10.0, {"productDefinitionTemplateNumber": 2, "derivedForecast": kind}
    (tmp_path / "wind").write_bytes(message(field, **keys) + message(field, **keys, shortName="10v"))
    np.testing.assert_allclose(values_of(wind_of(open_dataset(str(tmp_path / "wind")))["u"], np.array([0])).ravel(), field, atol=1e-4)


def test_the_order_of_points_may_change_within_a_file(tmp_path):
    axes = np.linspace(90, -90, ROWS), 45.0 * np.arange(COLUMNS)
    upward = message(
        wind(axes[0][::-1, None], axes[1]),
        jScansPositively=1,
        latitudeOfFirstGridPointInDegrees=-90,
        latitudeOfLastGridPointInDegrees=90,
        dataTime=600,
    )
    (tmp_path / "wind").write_bytes(message(wind(axes[0][:, None], axes[1])) + upward)
    first, second = values_of(wind_of(open_dataset(str(tmp_path / "wind")))["u"], np.arange(2))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_an_ensemble_is_a_table_and_a_message_that_is_missing_is_nan(tmp_path):
    content = []
    for member, step, name in itertools.product((0, 1, 2), (6, 12), ("10u", "10v")):
        keys = {"productDefinitionTemplateNumber": 1, "number": member, "numberOfForecastsInEnsemble": 3, "stepRange": step}
        handle = eccodes.codes_new_from_message(message())
        for key, value in {**keys, "shortName": name}.items():
            eccodes.codes_set(handle, key, value)
        eccodes.codes_set_values(handle, np.arange(COLUMNS * ROWS) + 100.0 * member + step)
        content.append(eccodes.codes_get_message(handle))
        eccodes.codes_release(handle)
    (tmp_path / "wind").write_bytes(b"".join(content[:-1]))
    dataset = open_dataset(str(tmp_path / "wind"))
    assert dict(dataset.u10.sizes) == {"number": 3, "step": 2, "latitude": ROWS, "longitude": COLUMNS}
    np.testing.assert_allclose(dataset.u10[:, :, 0, 0], [[6, 12], [106, 112], [206, 212]], atol=1e-3)
    np.testing.assert_allclose(dataset.u10[1, :, 2, 3:6], [[125, 126, 127], [131, 132, 133]], atol=1e-3)
    assert np.isnan(dataset.v10[2, 1]).all()
    assert np.isfinite(dataset.v10[:2]).all()
    (tmp_path / "wind").write_bytes(b"".join([*content, content[0]]))
    with pytest.raises(UserError, match="has 6 h of member 0 twice"):
        open_dataset(str(tmp_path / "wind"))


def test_means_over_an_interval_are_noted(tmp_path):
    (tmp_path / "wind").write_bytes(message(edition=1, stepType="avg", stepRange="0-6"))
    assert open_dataset(str(tmp_path / "wind")).u10.attrs["cell_methods"] == "time: mean"


def test_grib_files_without_a_suffix_are_recognised(tmp_path):
    """GFS names its files without a suffix. GRIB is recognised by its first bytes, so index files are left out."""
    directory = tmp_path / "gfs"
    directory.mkdir()
    for hour in (0, 6, 12):
        (directory / f"gfs.t{hour:02d}z.pgrb2.1p00.f000").write_bytes(b"".join(series([hour])))
        (directory / f"gfs.t{hour:02d}z.pgrb2.1p00.f000.idx").write_text("1:0:d=2020010100:UGRD:10 m above ground:anl:\n")
    record = open_record(str(directory), tmp_path / "scratch")
    assert not record.problems
    assert record.times.size == 3


def test_prepare_from_a_file_that_scans_westward(tmp_path):
    """The prepared store holds the wind at the points of the messages."""
    axes = np.linspace(90, -90, ROWS), 45.0 * np.arange(COLUMNS)[::-1]
    keys = {"iScansNegatively": 1, "longitudeOfFirstGridPointInDegrees": 315, "longitudeOfLastGridPointInDegrees": 0}
    content = [
        message(
            wind(axes[0][:, None], axes[1]) + hour / 100, dataDate=20200101 + hour // 24, dataTime=100 * (hour % 24), shortName=name, **keys
        )
        for hour in range(0, 24 * 20, 6)
        for name in ("10u", "10v")
    ]
    (tmp_path / "wind.grib").write_bytes(b"".join(content))
    wsdcast.prepare(source=str(tmp_path / "wind.grib"), grid="8x5", run=tmp_path / "run")
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as store:
        first = store["10m_u_component_of_wind"][0]
        np.testing.assert_allclose(first, wind(store.latitude.values[:, None], store.longitude.values[None, :]), atol=0.01)
