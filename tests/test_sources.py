"""Tests that the same wind in any layout, file format or kind of server gives the same bytes in the prepared store."""

from __future__ import annotations

import itertools
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly, wind_dataset
from servers import serve

import wsdcast
from wsdcast.data.sources.opening import BUILT_IN
from wsdcast.data.variables import STATIC_FIELDS
from wsdcast.runs.errors import UserError

# Consolidated metadata are not yet in the text of the version 3 standard, but the public stores have them.
pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")

LATITUDES, LONGITUDES = np.linspace(90, -90, 13), np.arange(0.0, 360.0, 15.0)
TIMES = six_hourly("2020-01-01", 40)
HOUR = np.timedelta64(1, "h")
WB2_NAMES = {"u10": "10m_u_component_of_wind", "v10": "10m_v_component_of_wind"}


@pytest.fixture(scope="module")
def wind() -> xr.Dataset:
    """Return random wind and the static fields under the names of WeatherBench."""
    dataset = wind_dataset(TIMES, LATITUDES, LONGITUDES)
    values = np.random.default_rng(1).random((len(STATIC_FIELDS), 13, 24)).astype(np.float32)
    for name, field in zip(STATIC_FIELDS, values, strict=True):
        dataset[name] = (("latitude", "longitude"), field, {"units": STATIC_FIELDS[name].units})
    return dataset


@pytest.fixture(scope="module")
def expected(wind, tmp_path_factory) -> Path:
    """Return the store made from the simplest file."""
    directory = tmp_path_factory.mktemp("expected")
    wind.to_netcdf(directory / "wind.nc")
    wsdcast.prepare(source=str(directory / "wind.nc"), grid="12x7", run=directory / "run")
    return directory / "run/analysis.zarr"


def arrays_of(store: Path) -> dict[str, bytes]:
    """Return every file except the group's metadata, which name the source."""
    files = (path for path in store.rglob("*") if path.is_file() and path.parent != store)
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def assert_same_store(store: Path, expected: Path) -> None:
    stored, reference = arrays_of(store), arrays_of(expected)
    assert stored.keys() == reference.keys()
    assert [name for name in stored if stored[name] != reference[name]] == []
    with xr.open_zarr(store) as first, xr.open_zarr(expected) as second:
        assert first.attrs["normalisation"] == second.attrs["normalisation"]


def save_weatherbench(dataset: xr.Dataset, path: Path) -> None:
    """Save as Zarr version 2 with longitude first, south to north, and eight steps per chunk."""
    turned = dataset.rename(WB2_NAMES).isel(latitude=slice(None, None, -1)).transpose("time", "longitude", "latitude")
    turned.to_zarr(path, zarr_format=2, consolidated=True, encoding={name: {"chunks": (8, 24, 13)} for name in WB2_NAMES.values()})


def save_arco(dataset: xr.Dataset, path: Path) -> None:
    """Save as hourly Zarr version 3 with one step per chunk and a time axis that is longer than the data."""
    first, last = TIMES[0] - np.timedelta64(2, "D"), TIMES[-1] + np.timedelta64(9, "D")
    hourly = dataset.rename(WB2_NAMES).reindex(time=np.arange(first, last, np.timedelta64(1, "h")))
    hourly = hourly.transpose("time", "latitude", "longitude", missing_dims="ignore")
    # One of the static fields has a time axis, and no values before the valid range.
    valid = (hourly.time >= TIMES[0]).astype("f4").where(hourly.time >= TIMES[0])
    hourly["land_sea_mask"] = (hourly.land_sea_mask * valid).transpose("time", ...).assign_attrs(dataset.land_sea_mask.attrs)
    hourly.attrs = {"valid_time_start": "2020-01-01", "valid_time_stop": str(TIMES[-1].astype("datetime64[D]"))}
    chunks = {name: {"chunks": (1, 13, 24)} for name in WB2_NAMES.values()}
    hourly.to_zarr(path, zarr_format=3, consolidated=True, encoding=chunks)


def save_sharded(dataset: xr.Dataset, path: Path) -> None:
    chunks = {name: {"chunks": (4, 13, 24), "shards": (16, 13, 24)} for name in ("u10", "v10")}
    dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding=chunks)


def save_versions(dataset: xr.Dataset, path: Path) -> None:
    """Save as the old Climate Data Store did: final and preliminary data side by side, each missing where the other is not."""
    final = dataset[["u10", "v10"]].where(dataset.time < TIMES[30])
    preliminary = dataset[["u10", "v10"]].where(dataset.time >= TIMES[30])
    both = xr.concat([preliminary, final], "expver").assign_coords(expver=[5, 1]).transpose("time", "expver", ...)
    xr.merge([both, dataset[list(STATIC_FIELDS)]]).to_netcdf(path)


def save_many(dataset: xr.Dataset, path: Path) -> None:
    """Save a directory of files with months out of order, u and v in separate files, and one file without wind."""
    path.mkdir()
    for name, part in (("b", slice(0, 17)), ("a", slice(17, 40))):
        for component in ("u10", "v10"):
            dataset[[component]].isel(time=part).to_netcdf(path / f"{name}_{component}.nc")
    dataset[list(STATIC_FIELDS)].to_netcdf(path / "static.nc")


def save_zip(dataset: xr.Dataset, path: Path) -> None:
    """Save as the new Climate Data Store does: a zip archive of one file per step type, without the suffix zip."""
    new = dataset.rename(time="valid_time").assign_coords(number=0, expver=("valid_time", ["0001"] * TIMES.size))
    new[["u10", "v10", *STATIC_FIELDS]].to_netcdf(path.with_suffix(".instant.nc"))
    xr.Dataset({"tp": ("valid_time", np.zeros(3))}, {"valid_time": TIMES[:3]}).to_netcdf(path.with_suffix(".accum.nc"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path.with_suffix(".instant.nc"), "data_stream-oper_stepType-instant.nc")
        archive.write(path.with_suffix(".accum.nc"), "../../data_stream-oper_stepType-accum.nc")
    for half in ("instant", "accum"):
        path.with_suffix(f".{half}.nc").unlink()


def to_netcdf(change):
    return lambda dataset, path: change(dataset).to_netcdf(path)


LAYOUTS = {
    "south to north": to_netcdf(lambda ds: ds.isel(latitude=slice(None, None, -1))),
    "180 W to 180 E": to_netcdf(lambda ds: ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby("longitude")),
    "longitude first": to_netcdf(lambda ds: ds.transpose("time", "longitude", "latitude")),
    "short names": to_netcdf(lambda ds: ds.rename(latitude="lat", longitude="lon", u10="10u", v10="10v", land_sea_mask="lsm")),
    "unsorted times": to_netcdf(lambda ds: ds.isel(time=np.random.default_rng(2).permutation(TIMES.size))),
    "height of length one": to_netcdf(lambda ds: ds.assign({name: ds[name].expand_dims(height=[10.0]) for name in ("u10", "v10")})),
    "chunked and compressed": lambda ds, path: ds.to_netcdf(path, encoding={"u10": {"chunksizes": (7, 13, 24), "zlib": True}}),
    "NetCDF 3": lambda ds, path: ds.to_netcdf(path, format="NETCDF3_64BIT"),
    "by standard name": to_netcdf(
        lambda ds: ds.assign(
            u=ds.u10.assign_attrs(standard_name="eastward_wind").assign_coords(height=10.0),
            v=ds.v10.assign_attrs(standard_name="northward_wind").assign_coords(height=10.0),
        ).drop_vars(["u10", "v10"])
    ),
    "one of two heights": to_netcdf(
        lambda ds: ds.assign(
            {
                name: xr.concat([ds[name].copy(data=ds[name] * 2), ds[name]], "height").assign_coords(height=[100.0, 10.0])
                for name in WB2_NAMES
            }
        )
    ),
    "hourly": lambda ds, path: ds.reindex(time=np.arange(TIMES[0], TIMES[-1] + HOUR, HOUR), method="ffill").to_netcdf(
        path, encoding={"u10": {"chunksizes": (24, 13, 24)}}
    ),
    "WeatherBench 2": save_weatherbench,
    "ARCO-ERA5": save_arco,
    "Zarr with shards": save_sharded,
    "two versions": save_versions,
    "many files": save_many,
    "zipped": save_zip,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_wind_in_any_layout_gives_the_same_store(tmp_path, wind, expected, layout):
    source = tmp_path / "download.nc"
    LAYOUTS[layout](wind, source)
    wsdcast.prepare(source=str(source), grid="12x7", run=tmp_path / "run")
    assert_same_store(tmp_path / "run/analysis.zarr", expected)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["analysis.zarr"]
    assert not list(tmp_path.parent.glob("data_stream*"))  # a path with ../.. in an archive is not followed


def test_processes_give_the_same_store_as_threads(tmp_path, wind, expected):
    """They also leave the environment as it was, such as the number of threads for torch."""
    wind.to_netcdf(tmp_path / "wind.nc")
    before = dict(os.environ)
    wsdcast.prepare(source=str(tmp_path / "wind.nc"), grid="12x7", run=tmp_path / "run", workers=2)
    assert_same_store(tmp_path / "run/analysis.zarr", expected)
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_running_scheduler_gives_the_same_store(tmp_path, wind, expected):
    from dask.distributed import LocalCluster

    wind.to_netcdf(tmp_path / "wind.nc")
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0", protocol="tcp") as cluster:
        wsdcast.prepare(source=str(tmp_path / "wind.nc"), grid="12x7", run=tmp_path / "run", scheduler=cluster.scheduler_address)
    assert_same_store(tmp_path / "run/analysis.zarr", expected)
    with pytest.raises(UserError, match="no dask scheduler answers there"):
        wsdcast.prepare(source=str(tmp_path / "wind.nc"), grid="12x7", run=tmp_path / "none", scheduler="tcp://127.0.0.1:9")


@pytest.fixture
def bucket(tmp_path, wind) -> Path:
    """Return a directory with the public stores under their real names, and one other store."""
    for name, save in (("wb2", save_weatherbench), ("wb2-0.25", save_weatherbench), ("arco", save_arco)):
        path = tmp_path / "bucket" / BUILT_IN[name].removeprefix("gs://")
        path.parent.mkdir(parents=True, exist_ok=True)
        save(wind, path)
    save_sharded(wind, tmp_path / "bucket/mine/wind.zarr")
    return tmp_path / "bucket"


@pytest.mark.parametrize("source", [*BUILT_IN, "gs://mine/wind.zarr"])
def test_google_storage(tmp_path, monkeypatch, bucket, expected, source):
    """obstore reads Google's address from the environment, so the built-in names and gs:// are tested whole, with a local server."""
    if source.endswith("wind.zarr"):  # without consolidated metadata a bucket must be listed, which this server does not support
        import zarr

        zarr.consolidate_metadata(bucket / "mine/wind.zarr")
    with serve(bucket) as (url, handler):
        monkeypatch.setenv("GOOGLE_BASE_URL", url)
        wsdcast.prepare(source=source, grid="12x7", run=tmp_path / "run")
        chunks = [
            count for name, count in handler.requests.items() if "component_of_wind/" in name and not name.endswith(("json", ".zarray"))
        ]
    assert_same_store(tmp_path / "run/analysis.zarr", expected)
    if source != "gs://mine/wind.zarr":
        assert len(chunks) == 2 * (40 if source == "arco" else 5)
        assert set(chunks) == {1}  # only the needed chunks are read, each once


def test_a_chunk_over_https_is_read_again_after_failures(tmp_path, bucket, expected):
    name = "weatherbench2/datasets/era5/" + BUILT_IN["wb2"].rsplit("/", 1)[1]
    with serve(bucket) as (url, handler):
        handler.failures[f"{name}/10m_v_component_of_wind/2.0.0"] = 3
        wsdcast.prepare(source=f"{url}/{name}", grid="12x7", run=tmp_path / "run")
        assert handler.requests[f"{name}/10m_v_component_of_wind/2.0.0"] == 4
    assert_same_store(tmp_path / "run/analysis.zarr", expected)


@pytest.mark.slow
def test_a_store_on_s3_is_read(tmp_path, monkeypatch, bucket, expected):
    """Read a sharded store of version 3 without consolidated metadata from moto's server, which supports listing and ranges."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=url, **keys)
        client.create_bucket(Bucket="mine")
        for path in (bucket / "mine").rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "mine", str(path.relative_to(bucket / "mine")))
        client.close()
        for name, value in {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        wsdcast.prepare(source="s3://mine/wind.zarr", grid="12x7", run=tmp_path / "run")
    finally:
        server.stop()
    assert_same_store(tmp_path / "run/analysis.zarr", expected)


def test_a_missing_store_is_one_line(tmp_path, bucket):
    with serve(bucket) as (url, _), pytest.raises(UserError, match=r"none\.zarr: cannot be opened as a Zarr store"):
        wsdcast.prepare(source=f"{url}/none.zarr", run=tmp_path / "run")


def test_static_fields_are_area_averages(expected, wind):
    from wsdcast.data.grid import Grid
    from wsdcast.data.regrid import regrid

    with xr.open_zarr(expected) as store:
        for name in STATIC_FIELDS:
            averages = regrid(wind[name].values, Grid(LATITUDES, LONGITUDES), Grid.regular("12x7"))
            np.testing.assert_array_equal(store[name].values, averages)
            assert store[name].attrs["units"] == STATIC_FIELDS[name].units


@pytest.mark.parametrize("edition", [1, 2])
def test_grib(tmp_path, wind, expected, edition):
    """GRIB from eccodes with 24 bits per value gives the same store, up to the last unit of a few values, and leaves no index file."""
    import eccodes

    source = tmp_path / "wind.grib"
    with source.open("wb") as file:
        for step, (name, code) in itertools.product(range(TIMES.size), (("u10", 165), ("v10", 166))):
            message = eccodes.codes_grib_new_from_samples(f"regular_ll_sfc_grib{edition}")
            date, hour = str(TIMES[step].astype("datetime64[h]")).split("T")
            keys = {"Ni": 24, "Nj": 13, "latitudeOfFirstGridPointInDegrees": 90, "latitudeOfLastGridPointInDegrees": -90}
            keys |= {"longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 345}
            keys |= {"iDirectionIncrementInDegrees": 15, "jDirectionIncrementInDegrees": 15, "dataDate": int(date.replace("-", ""))}
            for key, value in (keys | {"dataTime": 100 * int(hour), "paramId": code, "bitsPerValue": 24}).items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set_values(message, wind[name][step].values.ravel().astype(float))
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)
    wsdcast.prepare(source=str(source), grid="12x7", run=tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "wind.grib"]
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as stored, xr.open_zarr(expected) as reference:
        np.testing.assert_array_equal(stored.time, reference.time)
        for name in WB2_NAMES.values():
            np.testing.assert_allclose(stored[name], reference[name], atol=0.0051)
            assert (stored[name] != reference[name]).mean() < 0.01


@pytest.mark.slow
def test_the_era5_recipe_from_its_store_to_a_forecast(tmp_path, monkeypatch, bucket):
    """The recipe is the shipped one, with a smaller grid, smaller networks that are not compiled, and the dates of forty steps."""
    import yaml

    content = yaml.safe_load((Path(__file__).parents[1] / "pipelines/era5.yaml").read_text())
    content["data"] |= {"grid": "12x7", "start": "2020-01-01", "validation_from": "2020-01-06", "test_from": "2020-01-07"}
    content["moments"] |= {"widths": [8, 8], "steps": 2, "batch": 2, "compile": False}
    content["generator"] |= {"widths": [8, 8], "steps": 2, "compile": False}
    content["few_steps"] |= {"steps": 2, "compile": False}
    content["rollout"] = {"members": 2, "nfe": 2, "starts": 1, "days": 0.5}
    (tmp_path / "era5.yaml").write_text(yaml.safe_dump(content))
    with serve(bucket) as (url, _):
        monkeypatch.setenv("GOOGLE_BASE_URL", url)
        summaries = wsdcast.run(tmp_path / "era5.yaml", tmp_path / "run")
    assert [summary.stage for summary in summaries] == ["prepare", "train", "rollout", "score"]
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as store:
        assert set(content["forcings"]["static"]) < set(store.data_vars)
    assert len(content["forcings"]["static"]) == 5
    assert wsdcast.run(tmp_path / "era5.yaml", tmp_path / "run")[0].facts == {"current": f"{tmp_path}/run/analysis.zarr"}
