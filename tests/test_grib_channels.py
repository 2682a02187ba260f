"""Variables of the surface and of pressure levels in GRIB files of both editions, by short name and type of level."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SHARED, needs_shared

import wsdcast
from wsdcast.data.sources.layout import fields_of, values_of
from wsdcast.data.sources.opening import open_dataset
from wsdcast.data.sources.record import open_record
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.variables import DEFAULT, GRAVITY

eccodes = pytest.importorskip("eccodes")

from grib_messages import COLUMNS, ROWS, message  # noqa: E402

NAMES = (
    *DEFAULT,
    "2m_temperature",
    "mean_sea_level_pressure",
    "geopotential@500",
    "temperature@500",
    "temperature@850",
    "specific_humidity@850",
)
ON_LEVELS = {"levtype": "pl"}


def field(seed: int, mean: float, std: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, std, (ROWS, COLUMNS))


def messages(edition: int, step: int, height: bool) -> tuple[list[bytes], np.ndarray]:
    """Return the messages of one time, and their values in the order of ``NAMES``."""
    fields = [
        field(10 * step + number, *moments)
        for number, moments in enumerate([(0, 8), (0, 8), (280, 10), (101000, 900), (54000, 900), (250, 9), (270, 9)])
    ]
    fields.append(np.abs(field(10 * step + 7, 0.004, 0.002)))
    time = {"dataDate": 20200101 + step // 4, "dataTime": 600 * (step % 4), "edition": edition}
    level = {"typeOfLevel": "isobaricInhPa"}
    keys = [
        {"shortName": "10u"},
        {"shortName": "10v"},
        {"shortName": "2t"},
        {"shortName": "msl"},
        {"shortName": "gh" if height else "z", **level, "level": 500},
        {"shortName": "t", **level, "level": 500},
        {"shortName": "t", **level, "level": 850},
        {"shortName": "q", **level, "level": 850},
    ]
    scaled = [values / GRAVITY if height and number == 4 else values for number, values in enumerate(fields)]
    return [message(values, **time, **key) for values, key in zip(scaled, keys, strict=True)], np.stack(fields)


@pytest.mark.parametrize(("edition", "height"), [(1, False), (2, False), (2, True)])
def test_every_variable_is_read_by_short_name_and_level(tmp_path, edition, height):
    content, expected = zip(*(messages(edition, step, height) for step in range(40)), strict=True)
    (tmp_path / "all.grib").write_bytes(b"".join(part for parts in content for part in parts[::-1]))
    (tmp_path / "r.yaml").write_text(
        f"name: r\ndata: {{source: '{tmp_path}/all.grib', grid: 8x5, method: nearest, variables: {list(NAMES)}}}"
    )
    wsdcast.prepare(tmp_path / "r.yaml", tmp_path / "run")
    record = open_analysis(tmp_path / "run/analysis.zarr")
    tolerance = 0.51 * record.states.packing.scale + 1e-5 * np.abs(expected).max(axis=(0, 2, 3))
    assert (np.abs(record.states[:] - expected).max(axis=(0, 2, 3)) <= tolerance).all()


def test_variables_that_are_not_asked_for_do_not_matter(tmp_path):
    """A forecast of temperature at further times leaves the wind as it is."""
    content = [part for step in range(4) for part in messages(2, step, False)[0]]
    content.append(message(field(99, 280, 9), shortName="2t", dataDate=20200101, stepRange="3"))
    (tmp_path / "a.grib").write_bytes(b"".join(content))
    assert open_record(str(tmp_path / "a.grib"), tmp_path).times.size == 4
    dataset = open_dataset(str(tmp_path / "a.grib"))
    assert set(dataset.data_vars) == {"u10", "v10"}
    assert dataset.attrs["other_variables"] == ["2t", "msl", "z_500hpa", "t_500hpa", "t_850hpa", "q_850hpa"]
    problems = open_record(str(tmp_path / "a.grib"), tmp_path, channels=(*DEFAULT, "temperature@700")).problems
    found = "u10, v10, 2t, msl, z_500hpa, t_500hpa, t_850hpa, q_850hpa"
    assert problems == [f"has no temperature@700; looked for temperature or t or tmp at 700 hPa among {found}"]


def test_a_variable_that_lacks_a_time_is_missing_there(tmp_path):
    content = [part for step in range(4) for part in messages(2, step, False)[0][: 8 if step else 2]]
    (tmp_path / "a.grib").write_bytes(b"".join(content))
    names = (*DEFAULT, "temperature@850")
    fields = fields_of(open_dataset(str(tmp_path / "a.grib"), names), names)
    temperature = values_of(fields[("temperature@850",)], np.arange(4))
    assert np.isnan(temperature[0]).all()
    assert np.isfinite(temperature[1:]).all()


@pytest.mark.parametrize("centre", [7, 34, 74, 98])
def test_wind_in_grib_1_of_every_centre_is_read(tmp_path, centre):
    expected = field(1, 0, 8)
    level = {"indicatorOfTypeOfLevel": 105, "level": 10}
    numbers = {98: (128, 165, 166)}.get(centre, (2, 33, 34))  # of the table of parameters, and of u and v in it
    content = []
    for number in numbers[1:]:
        keys = {"shortName": "10u", "centre": centre, "table2Version": numbers[0], "indicatorOfParameter": number, **level}
        content.append(message(expected, edition=1, **keys))
    (tmp_path / "a.grib").write_bytes(b"".join(content))
    dataset = open_dataset(str(tmp_path / "a.grib"))
    np.testing.assert_allclose(dataset.u10.squeeze(), expected, atol=1e-4)
    np.testing.assert_allclose(dataset.v10.squeeze(), expected, atol=1e-4)


@needs_shared
def test_real_grib_has_pressure_and_temperature():
    path = str(SHARED / "formats/era5_grib1_10u10v_msl_iceland_hourly_72steps.grib")
    names = (*DEFAULT, "mean_sea_level_pressure")
    fields = fields_of(open_dataset(path, names), names)
    assert set(fields) == {(name,) for name in names}
    pressure = fields[("mean_sea_level_pressure",)].array.values
    assert 93000 < pressure.min() < pressure.max() < 106000
    path = str(SHARED / "formats/era5_grib1_10u10v2tmsl_i10fg_southamerica_1step.grib")
    dataset = open_dataset(path, ("2m_temperature",))
    temperature = fields_of(dataset, ("2m_temperature",))[("2m_temperature",)].array.values
    assert 230 < temperature.min() < temperature.max() < 320
