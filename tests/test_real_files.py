"""Files as providers give them: their problems are named, and their values are those of a direct reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import SHARED, needs_shared, wind_of

from wsdcast.data.sources.layout import values_of
from wsdcast.data.sources.opening import open_dataset
from wsdcast.data.sources.record import open_record
from wsdcast.data.sources.space import order_of


def formats(name: str) -> Path:
    return SHARED / "formats" / name


REAL = {
    "era5_cdsnew_u10v10_bayofbengal_6h_30steps.nc": (
        24,
        ["longitudes 80 to 98 are not equal steps round the whole circle"],
        ["6 of 30 times are at other hours (23:00) and left out"],
    ),
    "era5_cdsold_u10v10sst_mediterranean_daily_27steps.nc": (
        27,
        ["not a global grid", "none of its 27 times at 00, 06, 12 or 18 UTC is followed by one 6 h later"],
        [],
    ),
    "era5_cdsold_u10v10_3x3_hourly_8664steps.nc": (
        1444,
        ["not a global grid"],
        ["other hours (01:00, 02:00, 03:00, 04:00, 05:00, 07:00 and 14 more)"],
    ),
    "era5_cdsold_u100v100_expverdim_monthly_514steps.nc": (0, ["has none of 10 m wind u, 10 m wind v; looked for"], []),
    "era5_grib1_10u10v_msl_iceland_hourly_72steps.grib": (12, ["longitudes 330 to 352"], ["60 of 72 times are at other hours"]),
    "era5_grib1_10u10v2tmsl_i10fg_southamerica_1step.grib": (
        0,
        ["longitudes 270 to 330", "none of its times lies at 00"],
        ["1 of 1 times are at other hours (17:00)"],
    ),
    "gfs_0p5deg_global_cfgrib_scalar_coords_1step.nc": (1, ["none of its 1 times"], ["forecasts, not analyses"]),
    "gfs_1deg_global_10u10v.grib2": (
        0,
        ["none of its times lies at 00, 06, 12 or 18 UTC"],
        ["forecasts, not analyses", "1 of 1 times are at other hours (21:00)"],
    ),
    "eraint_uvz_monthly.nc": (0, ["has none of 10 m wind u, 10 m wind v"], []),
}


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_real_files_have_their_problems_named(tmp_path, name):
    """None of these files is a global six-hourly record. The problems say why, and the notes what was left out."""
    steps, problems, notes = REAL[name]
    record = open_record(str(formats(name)), tmp_path)
    assert record.times.size == steps
    for lines, expected in ((record.problems, problems), (record.notes, notes)):
        assert len(lines) == len(expected)
        assert all(words in line for words, line in zip(expected, lines, strict=True))


@needs_shared
def test_every_real_file_is_covered():
    assert {path.name for path in (SHARED / "formats").iterdir()} == {*REAL, "README.md"}


@needs_shared
def test_a_real_file_of_two_versions_is_merged(tmp_path):
    """100 m wind under the names of 10 m wind: each month is in one of the two versions, and nothing is missing after the merge."""
    with xr.open_dataset(formats("era5_cdsold_u100v100_expverdim_monthly_514steps.nc")) as dataset:
        names = {"u100": "u10", "v100": "v10"}
        renamed = dataset.rename(names).load()
    one, other = renamed.u10.sel(expver=1), renamed.u10.sel(expver=5)
    assert one.isnull().any()
    assert other.isnull().any()
    globe = renamed.isel(latitude=slice(0, 4), longitude=slice(0, 4))
    globe = globe.assign_coords(latitude=[80.0, 30.0, -30.0, -80.0], longitude=[0.0, 90.0, 180.0, 270.0])
    values = values_of(wind_of(globe)["u"], np.arange(514))
    expected = one.fillna(other).isel(latitude=slice(0, 4), longitude=slice(0, 4)).values
    np.testing.assert_array_equal(values, expected.astype(np.float32))
    assert np.isfinite(values).all()


@needs_shared
def test_real_grib_is_the_wind_of_its_converted_twin(tmp_path):
    """GRIB 2 through eccodes, global: the values of a direct reading, in the one order."""
    import eccodes

    path = formats("gfs_1deg_global_10u10v.grib2")
    with path.open("rb") as file:
        message = eccodes.codes_grib_new_from_file(file)
        values = eccodes.codes_get_values(message).reshape(181, 360)
        assert eccodes.codes_get(message, "shortName") == "10u"
        eccodes.codes_release(message)
    wind = wind_of(open_dataset(str(path)))["u"]
    assert order_of(wind.array)[2].name == "360x181"
    np.testing.assert_allclose(values_of(wind, np.array([0]))[0], values, atol=1e-5)
    assert not list(tmp_path.glob("*.idx"))
    assert not list(path.parent.glob("*.idx"))
