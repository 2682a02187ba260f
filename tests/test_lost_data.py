"""Files that were cut off and stores that lost a chunk: what is lost is missing or refused, never read as a number."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr
from servers import serve
from small_sources import LATITUDES, LONGITUDES, looked_at, wind

import wsdcast
from wsdcast.data.sources.blocks import read_block
from wsdcast.data.sources.classic_netcdf import required_size
from wsdcast.data.sources.opening import open_dataset
from wsdcast.data.steps import time_text
from wsdcast.runs.errors import UserError
from wsdcast.verification.truth import open_truth


def store(path: Path, version: int, kind: str, fill: Any, sharded: bool = False) -> np.ndarray:
    """Wind in chunks of 4 times and half of the longitudes; values as they must be read back."""
    values = np.random.default_rng(0).normal(0, 6, (8, 7, 12))
    scale = {} if kind == "f4" else {"scale_factor": 0.005}
    raw = np.round(values / 0.005).astype(int).astype(kind) if scale else values.astype(kind)
    group = zarr.open_group(path, mode="w", zarr_format=version)  # type: ignore[arg-type]
    axes = {"time": 6 * np.arange(8), "latitude": LATITUDES, "longitude": LONGITUDES}

    def array(name: str, data: np.ndarray, dimensions: tuple[str, ...], attributes: dict[str, Any], **how: Any) -> None:
        how |= {"dimension_names": dimensions} if version == 3 else {}
        attributes = attributes if version == 3 else {**attributes, "_ARRAY_DIMENSIONS": list(dimensions)}
        array = group.create_array(name, shape=data.shape, dtype=data.dtype, attributes=attributes, **how)
        array[:] = data

    for name, axis in axes.items():
        array(name, axis, (name,), {"units": "hours since 2020-01-01"} if name == "time" else {}, chunks=axis.shape)
    how = {"chunks": (4, 7, 6), "fill_value": fill} | ({"shards": (8, 7, 12)} if sharded else {})
    for name in ("u10", "v10"):
        array(name, raw, tuple(axes), {"units": "m s-1", **scale}, **how)
    zarr.consolidate_metadata(path)
    return raw * scale.get("scale_factor", 1.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fill", [0, np.nan, None, -32767])
@pytest.mark.parametrize("kind", ["f4", "i2"])
@pytest.mark.parametrize("version", [2, 3])
def test_an_absent_chunk_is_missing_under_any_fill_value(tmp_path, version, kind, fill):
    if kind == "i2" and fill is not None and np.isnan(fill):
        fill = 7
    values = store(tmp_path / "a.zarr", version, kind, fill)
    (tmp_path / "a.zarr/u10" / ("c/1/0/1" if version == 3 else "1.0.1")).unlink()
    opened = open_dataset(str(tmp_path / "a.zarr"))
    absent = np.zeros(values.shape, dtype=bool)
    absent[4:, :, 6:] = True
    np.testing.assert_array_equal(np.isnan(opened.u10.values), absent)
    np.testing.assert_allclose(opened.u10.values[~absent], values[~absent], rtol=1e-6)
    np.testing.assert_allclose(opened.v10.values, values, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [2, 3])
def test_values_that_are_declared_missing_are_missing(tmp_path, version):
    """In version 2 xarray declares them by the fill value of the array."""
    dataset = wind(8).chunk(time=4, longitude=6)
    dataset["u10"] = dataset.u10.where(dataset.u10 < 5)
    encoding = {name: {"_FillValue": -9999.0} for name in ("u10", "v10")}
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=version, encoding=encoding)
    (tmp_path / "a.zarr/v10" / ("c/1/0/1" if version == 3 else "1.0.1")).unlink()
    opened = open_dataset(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(opened.u10.values, dataset.u10.values)
    assert 0 < np.isnan(opened.u10.values).sum() < opened.u10.size
    assert np.isnan(opened.v10.values).sum() == 4 * 7 * 6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [2, 3])
def test_zeros_of_floats_are_data_if_the_fill_value_is_0(tmp_path, version):
    """Most programs write it that declare no missing value."""
    values = store(tmp_path / "a.zarr", version, "f4", 0)
    zarr.open_array(tmp_path / "a.zarr/u10", mode="r+")[3, 2] = values[3, 2] = 0
    np.testing.assert_allclose(open_dataset(str(tmp_path / "a.zarr")).u10.values, values, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "value"), [("i2", 2**15 - 1), ("u2", 0)])
@pytest.mark.parametrize("version", [2, 3])
def test_integers_are_data_but_for_the_lowest_signed_and_the_highest_unsigned(tmp_path, version, kind, value):
    store(tmp_path / "a.zarr", version, kind, None)
    zarr.open_group(tmp_path / "a.zarr", mode="r+")["u10"][0, 0, 0] = value
    assert open_dataset(str(tmp_path / "a.zarr")).u10.values[0, 0, 0] == pytest.approx(0.005 * value)


@pytest.mark.filterwarnings("ignore")
def test_an_absent_chunk_inside_a_shard_is_missing(tmp_path):
    values = store(tmp_path / "a.zarr", 3, "f4", 0.0, sharded=True)
    array = zarr.open_group(tmp_path / "a.zarr", mode="r+")["u10"]
    array[4:, :, 6:] = 0.0  # equal to the fill value: Zarr drops the chunk from its shard
    opened = open_dataset(str(tmp_path / "a.zarr")).u10.values
    assert np.isnan(opened[4:, :, 6:]).all()
    np.testing.assert_allclose(opened[:4], values[:4], rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("version", "sharded", "lost"), [(2, False, "1.0.1"), (3, False, "c/1/0/1"), (3, True, "c/0/0/0")])
def test_an_empty_chunk_is_refused_and_named_on_disk_and_behind_a_server(tmp_path, version, sharded, lost):
    """Decompressors were given the empty chunk. For an empty answer of a server Blosc ended the process by a signal."""
    store(tmp_path / "a.zarr", version, "f4", 0.0, sharded)
    (tmp_path / "a.zarr/u10" / lost).write_bytes(b"")
    with serve(tmp_path) as (url, _):
        for address in (str(tmp_path / "a.zarr"), f"{url}/a.zarr"):
            with pytest.raises(ValueError, match=f"^u10/{lost} is empty$"):
                _ = open_dataset(address).u10.values


@pytest.mark.filterwarnings("ignore")
def test_a_truth_lacks_what_its_store_lacks_and_is_refused_where_it_cannot_be_read(tmp_path):
    values, lost = store(tmp_path / "a.zarr", 3, "f4", 0.0), tmp_path / "a.zarr/u10/c/1/0/1"
    with serve(tmp_path) as (url, handler):
        for address in (str(tmp_path / "a.zarr"), f"{url}/a.zarr"):
            truth = open_truth(address, tmp_path, np.datetime64("2020-01-01"))
            whole = lost.read_bytes()
            np.testing.assert_allclose(truth.read(np.arange(8))[:, 0], values, rtol=1e-6)
            lost.write_bytes(whole[: len(whole) // 2])
            assert truth.read(np.arange(4)).shape == (4, 2, 7, 12)  # of another chunk
            with pytest.raises(UserError, match=f"^{address}: 10 m wind u from 2020-01-01T12 on cannot be read \\("):
                truth.read(np.array([2, 5]))
            lost.unlink()
            read = truth.read(np.array([2, 5]))
            assert np.isnan(read[1, 0]).sum() == 7 * 6
            np.testing.assert_allclose(read[0, 0], values[2], rtol=1e-6)
            lost.write_bytes(whole)
        handler.status, handler.failures["a.zarr/u10/c/1/0/1"] = 403, 1
        with pytest.raises(UserError, match=r"a\.zarr: 10 m wind u from 2020-01-02T00 on cannot be read \("):
            truth.read(np.array([4]))


@pytest.mark.filterwarnings("ignore")
def test_a_record_with_an_absent_chunk_is_refused_and_named(tmp_path):
    wind().chunk(time=8, longitude=6).to_zarr(tmp_path / "a.zarr", encoding={name: {"fill_value": 0.0} for name in ("u10", "v10")})
    (tmp_path / "a.zarr/v10/c/2/0/1").unlink()
    with pytest.raises(UserError, match=r"missing or infinite values in 10 m wind v at 2020-01-05T00"):
        wsdcast.prepare(source=str(tmp_path / "a.zarr"), grid="12x7", run=tmp_path / "run")


@pytest.mark.parametrize("lost", [np.s_[:8, :4, :6], np.s_[16:24, :4, 6:], np.s_[32:, 4:, 6:]])
def test_a_chunk_of_zeros_is_missing(tmp_path, lost):
    """Other programs copy a lost chunk of a store as zeros, which would be a calm."""
    dataset = wind()
    dataset["v10"].values[lost] = 0
    first = dataset.time.values[lost[0]][0]
    dataset.to_netcdf(tmp_path / "a.nc", encoding={name: {"chunksizes": (8, 4, 6)} for name in ("u10", "v10")})
    (block,) = looked_at(tmp_path / "a.nc").blocks()
    with pytest.raises(UserError, match=rf"a.nc: missing or infinite values in 10 m wind v at {time_text(first)} and 7 more"):
        list(read_block(block))
    truth = open_truth(str(tmp_path / "a.nc"), tmp_path, np.datetime64("2020-01-01")).read(np.arange(40))
    np.testing.assert_array_equal(np.isnan(truth[:, 1]), dataset.v10.values == 0)
    np.testing.assert_array_equal(truth[:, 0], dataset.u10.values)


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("rows", [3, 1])
def test_a_chunk_of_a_row_at_a_pole_may_have_one_value(tmp_path, rows, step):
    """There temperature has one value, and 721 rows leave a last chunk of one in most sizes of chunks."""
    dataset = wind().isel(latitude=slice(None, None, step))
    dataset["u10"].values[:, [0, 6]] = np.arange(1, 41)[:, None, None]
    dataset["v10"].values[:8, :rows, :6] = 0
    dataset["v10"].values[:8, rows : 2 * rows, :6] = 0
    dataset.to_netcdf(tmp_path / "a.nc", encoding={name: {"chunksizes": (8, rows, 6)} for name in ("u10", "v10")})
    u, v = open_truth(str(tmp_path / "a.nc"), tmp_path, np.datetime64("2020-01-01")).read(np.arange(40)).swapaxes(0, 1)[:, :, ::step]
    np.testing.assert_array_equal(u, dataset.u10.values)
    lost = dataset.v10.values == 0
    lost[:, :1] &= rows > 1
    np.testing.assert_array_equal(np.isnan(v), lost)


FORMATS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4"]


@pytest.mark.parametrize("unlimited", [True, False])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_netcdf_file_that_is_cut_anywhere_is_refused(tmp_path, kind, unlimited):
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format=kind) as file:
        for name, axis in {"time": 6.0 * np.arange(8), "latitude": LATITUDES, "longitude": LONGITUDES}.items():
            file.createDimension(name, None if unlimited and name == "time" else axis.size)
            file.createVariable(name, "f8", (name,))[:] = axis
        file["time"].units = "hours since 2020-01-01"
        file.title = "odd"
        for name in ("u10", "v10"):
            file.createVariable(name, "i2", ("time", "latitude", "longitude"))[:] = 7
            file[name].units = "m s-1"
    whole = path.read_bytes()
    if kind != "NETCDF4":
        assert len(whole) - 3 <= required_size(str(path)) <= len(whole)
    assert not looked_at(path).problems
    for share in (0.02, 0.3, 0.6, 0.9, 0.995):
        path.write_bytes(whole[: int(share * len(whole))])
        assert looked_at(path).problems, share


def test_the_size_of_a_lone_record_variable_is_not_padded(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("time", None)
        file.createVariable("a", "i1", ("time",))[:] = np.arange(5)
    size = (tmp_path / "a.nc").stat().st_size
    assert required_size(str(tmp_path / "a.nc")) in (size, size - 3)


@pytest.mark.parametrize("content", [b"CDF\x01", b"CDF\x05" + b"\xff" * 40, b"CDF\x02" + struct.pack(">iii", 1, 10, 10**9)])
def test_a_damaged_header_is_one_line(tmp_path, content):
    (tmp_path / "a.nc").write_bytes(content)
    assert "cannot be read as NetCDF" in looked_at(tmp_path / "a.nc").problems[0]


@pytest.mark.filterwarnings("ignore")
def test_a_static_field_has_chunks_of_one_value_but_none_that_is_absent(tmp_path):
    """A part of the globe may be sea throughout. An absent chunk is missing, and a field with missing values is not stored."""
    dataset = wind().chunk(time=8)
    land = np.zeros((7, 12))
    land[:, :6] = np.random.default_rng(1).random((7, 6))
    dataset["lsm"] = xr.DataArray(land, dims=("latitude", "longitude")).chunk(longitude=6)
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=3, encoding={"lsm": {"fill_value": -1.0}})
    record = looked_at(tmp_path / "a.zarr")
    assert record.problems == []
    np.testing.assert_allclose(record.static["land_sea_mask"], land, rtol=1e-6)
    (tmp_path / "a.zarr/lsm/c/0/1").unlink()
    assert np.isnan(looked_at(tmp_path / "a.zarr").static["land_sea_mask"][:, 6:]).all()
    wsdcast.prepare(source=str(tmp_path / "a.zarr"), grid="12x7", run=tmp_path / "run")
    assert "land_sea_mask" not in open_dataset(str(tmp_path / "run/analysis.zarr"))
