"""Tests that a record of several variables passes through training, rollout and scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from conftest import TINY, new_run, undrawn
from made_records import STATE, with_five_variables
from matplotlib.text import Text
from PIL import Image
from rollouts import forecast_of, loaded

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.forecasts import CLIPPED, STOPPED, Forecasts, Written, statistics_over_members
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError
from wsdcast.study.evaluation import evaluate
from wsdcast.verification.scoring import statistics_of
from wsdcast.verification.truth import open_truth, truth_of
from wsdcast.weather.forecast import writing
from wsdcast.weather.forecast.one_step import one_step
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.forecast.writing import run_and_write
from wsdcast.weather.recipe import Rollout, load_recipe
from wsdcast.weather.samples import samples_of
from wsdcast.weather.stages import plot

SST = "sea_surface_temperature"
STEP = np.timedelta64(6, "h")
UPPER = ("u_component_of_wind@250", "v_component_of_wind@250")


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run directory with a forecast and scores of five variables. A sixth is read and not forecast. Tests must not change it."""
    directory = new_run(prepared, tmp_path_factory.mktemp("variables"))
    with_five_variables(directory / "analysis.zarr", forcings=(SST,))
    wsdcast.train(directory.parent / "tiny.yaml", directory)
    wsdcast.rollout(run=directory)
    with undrawn("report"):
        wsdcast.score(run=directory)
    return directory


@pytest.fixture
def parts(run: Path):
    return loaded(run)


def captured(contexts):
    """Return a sampler that keeps its contexts and answers with the state now."""

    def sampler(context, noise):
        contexts.append(context.clone())
        return context[:, : noise.shape[1]].clone()

    return sampler


def test_a_context_has_the_forcing_variables_last(parts):
    _, record, networks = parts
    (samples,) = samples_of(record, networks.forcings, "train")
    states = torch.from_numpy(record.normalise(record.states[:]))
    now = torch.tensor([7, 3])
    context = samples.context(now - 1)
    assert samples.shape == (5, 8, 16)
    expected = torch.cat([states[now, :5], states[now - 1, :5], states[now, 5:]], dim=1)
    torch.testing.assert_close(context, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(samples.target(now - 1), states[now + 1, :5], rtol=1e-5, atol=1e-5)


@pytest.fixture
def in_solar_time(parts):
    """Return the record, forcings with the solar time, and the training samples with these."""
    _, record, networks = parts
    forcings = replace(networks.forcings, longitude=torch.tensor(record.grid.longitude))
    return record, forcings, samples_of(record, forcings, "train")[0]


@pytest.mark.parametrize("prescribed", [False, True])
def test_a_rollout_has_the_contexts_of_training(in_solar_time, prescribed):
    """Each member has the solar time of its step, and forcing variables that are held or prescribed."""
    record, forcings, samples = in_solar_time
    contexts: list[torch.Tensor] = []
    starts = samples.now[[3, 8]]
    list(ensembles(record, forcings, captured(contexts), starts.numpy(), members=2, steps=3, seed=0, prescribed=prescribed))
    now, before, at_start = samples.context(torch.tensor([3, 8])).split((5, 5, 5), dim=1)
    for step, context in enumerate(contexts):
        at = samples.forcings_after(torch.tensor([3, 8]), step)
        if not prescribed:
            at[:, 4:] = at_start[:, 4:]
        expected = torch.cat([now, now if step else before, at], dim=1)
        torch.testing.assert_close(context, expected.repeat_interleave(2, dim=0), rtol=1e-5, atol=1e-5)


def test_the_gaussians_one_step_ahead_are_of_the_contexts_of_training(in_solar_time):
    record, forcings, samples = in_solar_time
    matrix = torch.randn(5, 15, generator=torch.Generator().manual_seed(0))

    def moments(context):
        mean = torch.einsum("ij,bjrc->birc", matrix, context)
        return mean, 1 + mean.abs()

    names, chosen = (STATE[4], STATE[1]), torch.tensor([8, 3])
    fields = one_step(SimpleNamespace(moments=moments, forcings=forcings), record, samples.now[chosen].numpy(), names)
    mean, std = (field.numpy() * record.std[:5, None, None] for field in moments(samples.context(chosen)))
    assert set(fields) == {f"{name}_{moment}" for name in names for moment in ("mean", "std")}
    for name in names:
        channel = STATE.index(name)
        np.testing.assert_allclose(fields[f"{name}_mean"], mean[:, channel] + record.mean[channel], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(fields[f"{name}_std"], std[:, channel], rtol=1e-4)


def test_latitude_and_longitude_tell_points_apart(prepared, tmp_path):
    record = open_analysis(prepared / "run/analysis.zarr")
    (tmp_path / "r.yaml").write_text(TINY + "forcings: {latitude_longitude: true}\n")
    from wsdcast.weather.forcings import forcings_of

    fields = forcings_of(record, load_recipe(tmp_path / "r.yaml").forcings, torch.device("cpu"))
    assert fields.channels == 4
    latitude, longitude = np.deg2rad(record.grid.latitude), np.deg2rad(record.grid.longitude)
    np.testing.assert_allclose(fields.static[0, :, 3], np.sin(latitude), rtol=1e-6)
    np.testing.assert_allclose(fields.static[1, :, 3], np.cos(latitude), rtol=1e-6)
    np.testing.assert_allclose(fields.static[2, 3], np.sin(longitude), atol=1e-6)
    np.testing.assert_allclose(fields.static[3, 3], np.cos(longitude), atol=1e-6)


def test_a_store_has_an_array_for_each_variable(run):
    forecast = xr.open_zarr(run / "forecast.zarr", decode_timedelta=True)
    assert set(forecast.data_vars) == {*STATE, STOPPED}
    geopotential = forecast["geopotential@500"]
    assert (geopotential.attrs["units"], geopotential.attrs["pressure_level"]) == ("m2 s-2", 500)
    assert geopotential.dims == ("time", "number", "prediction_timedelta", "latitude", "longitude")
    assert 40_000 < float(geopotential.mean()) < 70_000
    assert 250 < float(forecast["2m_temperature"].mean()) < 310
    assert forecast.attrs["title"] == "ensemble forecast"


def test_a_model_file_forecasts_every_variable_with_the_bits_of_the_run(run, tmp_path):
    """Pressure and humidity differ by seven orders of magnitude, so no packing of one variable can hold the others."""
    of_run = forecast_of(run).isel(time=[0])
    start = str(of_run["time"].values[0].astype("datetime64[h]"))
    wsdcast.export_model(run, tmp_path / "model.wsd")
    summary = wsdcast.rollout(model=tmp_path / "model.wsd", initial=run / "analysis.zarr", run=tmp_path / "run", start=start)
    assert summary.facts["forcings"] == f"{SST} as at the initial time, at all lead times"
    xr.testing.assert_equal(forecast_of(tmp_path / "run")[list(STATE)], of_run[list(STATE)])
    with xr.open_dataset(tmp_path / "run/initial_states.nc") as states, xr.open_zarr(run / "analysis.zarr", chunks=None) as analyses:
        for name in (*STATE, SST):
            np.testing.assert_allclose(states[name], analyses[name].sel(time=states["time"]), rtol=1e-6, atol=1e-6)


def test_initial_values_that_the_packing_of_the_record_cannot_hold_are_counted(run, tmp_path):
    record = open_analysis(run / "analysis.zarr")
    highest = float(record.states[:].max(axis=(0, 2, 3))[STATE.index("geopotential@500")])
    with xr.open_zarr(run / "analysis.zarr", chunks=None) as analyses:
        states = analyses[[*STATE, SST]].isel(time=slice(0, 2)).load().drop_encoding().drop_attrs(deep=False)
    states["geopotential@500"][1, 3, :5] = highest + 2000
    states.to_netcdf(tmp_path / "high.nc")
    wsdcast.export_model(run, tmp_path / "model.wsd")
    summary = wsdcast.rollout(model=tmp_path / "model.wsd", initial=tmp_path / "high.nc", run=tmp_path / "run")
    assert summary.facts["notes"].startswith("geopotential@500: 5 values far beyond those of the model's record")


def test_the_statistics_of_a_variable_are_those_of_its_own_values(parts):
    """Mean and std of each channel, and of the speed of the one wind, which comes last."""
    fields = np.random.default_rng(0).normal(size=(4, 2, 5, 3, 6)).astype(np.float32)
    result = statistics_over_members(fields, STATE)
    assert result.shape == (7, 2, 6, 3, 6)
    np.testing.assert_allclose(result[0, :, :5], fields.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result[1, :, 5], np.hypot(fields[:, :, 1], fields[:, :, 3]).std(axis=0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("kept", [slice(None), slice(2, 3)])
def test_members_are_stopped_by_name_and_negative_values_are_clipped(parts, tmp_path, kept):
    """The second member gets too hot at the second step. All humidity is negative, within the margin, and written as zero."""
    _, record, networks = parts
    mean, std = (torch.from_numpy(values[:5])[:, None, None] for values in (record.mean, record.std))
    steps = []

    def sampler(context, noise):
        steps.append(1)
        state = context[:, :5] * std + mean
        state[:, 2] = -0.001
        if len(steps) == 2:
            state[1, 0] = 500
        return (state - mean) / std

    starts, settings = np.array([4]), Rollout(members=3, days=0.5)
    store = Forecasts(tmp_path / "f.zarr", record.times[starts], 3, settings.leads, False, record.grid, record.variables[kept])
    (tmp_path / "f.marks").mkdir()
    store.create()
    list(run_and_write(store, record, networks.forcings, sampler, starts, [np.array([0])], settings))
    written = store.written(0)
    assert written is not None
    assert (written.stopped, written.by) == ([0, 12, 0], ["", "2m_temperature", ""])
    # Three members at the first lead time and two at the second, on 128 points.
    assert written.clipped == {"specific_humidity@850": 5 * 128}
    store.close({})
    forecast = xr.open_zarr(store.path, decode_timedelta=True)
    humidity = forecast["specific_humidity@850"]
    assert humidity.attrs[CLIPPED] == pytest.approx(5 / 6)
    assert float(humidity.max()) == float(humidity.min()) == 0
    assert bool(humidity.isel(number=1, prediction_timedelta=1).isnull().all())


def test_what_is_written_is_the_ensemble_of_the_settings(parts, tmp_path, monkeypatch):
    """Each initial time has its own fields and its own number of clipped values, whichever group it is in. Chunks are written whole."""
    _, record, networks = parts
    starts, settings = np.array([4, 20, 9]), Rollout(members=2, days=1.0, keep=(6, 12, 24), seed=3, forcings="prescribed")
    monkeypatch.setattr(writing, "LEADS_PER_CHUNK", 2)
    write, blocks = Forecasts.write, []
    monkeypatch.setattr(Forecasts, "write", lambda *given: (blocks.append((*given[1:3], given[3].shape[1])), write(*given)))

    def sampler(context, noise):
        return 0.9 * context[:, :5] + 0.3 * noise + 0.1 * context[:, 10:]

    store = Forecasts(tmp_path / "f.zarr", record.times[starts], 2, settings.kept_leads, False, record.grid, STATE[1:])
    (tmp_path / "f.marks").mkdir()
    store.create()
    groups = [np.array([2, 0]), np.array([1])]
    assert len(list(run_and_write(store, record, networks.forcings, sampler, starts, groups, settings))) == 3 * 4
    states = ensembles(record, networks.forcings, sampler, starts, members=2, steps=4, seed=3, prescribed=True)
    expected = np.stack([state for step, state in enumerate(states) if step in (0, 1, 3)], axis=2)
    assert blocks == [(2, 0, 2), (0, 0, 2), (2, 2, 1), (0, 2, 1), (1, 0, 2), (1, 2, 1)]
    humidity = expected[:, :, :, 2]
    negative = [int((of_start < 0).sum()) for of_start in humidity]
    assert len({0, *negative}) == 4
    assert [store.written(row) for row in range(3)] == [Written([0, 0], ["", ""], {STATE[2]: number}) for number in negative]
    store.close({})
    humidity.clip(min=0, out=humidity)
    forecast = xr.open_zarr(store.path)
    for channel, name in enumerate(STATE[1:], start=1):
        np.testing.assert_array_equal(forecast[name], expected[:, :, :, channel])


def test_a_study_scores_members_as_a_rollout_stores_them(parts):
    """Half of the humidity is negative, within the margin; the statistics of a study are those of the members that a rollout writes."""
    _, record, networks = parts
    channel, starts = STATE.index("specific_humidity@850"), np.array([4, 9])
    mean, std = (float(values[channel]) for values in (record.mean, record.std))

    def sampler(context, noise):
        state = context[:, :5].clone()
        state[:, channel] = (0.001 * noise[:, channel].clamp(-5, 5) - mean) / std
        return state

    options = {"members": 3, "seed": 0}
    ours = evaluate(record, networks, sampler, starts, (6, 12), headline=STATE[channel], **options)
    for step, states in enumerate(ensembles(record, networks.forcings, sampler, starts, steps=2, **options)):
        humidity = states[:, :, [channel]]
        assert (humidity < 0).mean() == pytest.approx(0.5, abs=0.1)
        for row, start in enumerate(starts):
            truth = record.states[start + 1 + step][None, [channel]]
            expected = statistics_of(humidity[row][:, None].clip(min=0), truth, record.grid, None, STATE[channel : channel + 1])
            for name in ("crps_fair", "squared_error", "variance"):
                theirs = expected[name].sel(region="globe").item()
                assert ours[name].isel(time=row, prediction_timedelta=step).item() == pytest.approx(theirs, rel=1e-5), name


def test_the_animation_of_another_headline_is_drawn_anew(run, tmp_path):
    """The forecast does not depend on the headline and stays. Its animation went on to show the old one."""
    copy, recipe = tmp_path / "run", load_recipe(run.parent / "tiny.yaml")
    copy.mkdir()
    for path in run.iterdir():
        (copy / path.name).symlink_to(path)
    of_wind = (run / "forecast.gif").read_bytes()
    for headline, written in (("both", []), ("2m_temperature", [str(copy / "forecast.gif")]), ("2m_temperature", [])):
        assert list(wsdcast.rollout(recipe.changed(score__headline=headline), copy).written) == written
    assert (run / "forecast.gif").read_bytes() == of_wind != (copy / "forecast.gif").read_bytes()
    with Image.open(copy / "forecast.gif") as picture:
        assert picture.n_frames == 1 + len(recipe.rollout.kept_leads)


def test_maps_and_plume_show_the_headline(run, tmp_path, monkeypatch):
    """One that the forecast lacks is refused; the 10 m wind was drawn in its place."""
    drawn = []
    monkeypatch.setattr(plot.style, "save", lambda figure, path: (drawn.append(figure), path.write_bytes(b"")))
    recipe = load_recipe(run.parent / "tiny.yaml").changed(score__headline="geopotential@500")
    wsdcast.plot("maps", recipe, run, out=tmp_path / "maps.png")
    wsdcast.plot("plume", recipe, run, out=tmp_path / "plume.png", at=(50, 10))
    for figure in drawn:
        words = " ".join(text.get_text() for text in figure.findobj(Text))
        assert "500 hPa" in words
        assert "wind" not in words
    with pytest.raises(UserError, match=r"score\.headline: nothing is not in .*forecast.zarr, only 2m_temperature"):
        wsdcast.plot("maps", recipe.changed(score__headline="nothing"), run, out=tmp_path / "maps.png")


def test_some_variables_are_kept_with_the_same_bits(run, tmp_path, without_animation, without_report):
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("analysis.zarr", "moments", "predictions", "generator"):
        (copy / name).symlink_to(run / name)
    wsdcast.rollout(run=copy, variables=["geopotential@500", "2m_temperature"])
    kept, whole = forecast_of(copy), forecast_of(run)
    assert set(kept.data_vars) == {"2m_temperature", "geopotential@500", STOPPED}
    for name in ("2m_temperature", "geopotential@500"):
        np.testing.assert_array_equal(kept[name], whole[name])
    summary = wsdcast.score(run=copy)
    scores, all_scores = (xr.load_dataset(each / "scores.nc", decode_timedelta=True) for each in (copy, run))
    assert "energy_score" not in scores
    xr.testing.assert_equal(scores["rmse"].sel(variable="2m_temperature"), all_scores["rmse"].sel(variable="2m_temperature"))
    # Without wind, the first variable is the headline.
    assert summary.scores[0]["rmse"] == float(all_scores["rmse"].sel(variable="2m_temperature", region="globe")[0, 0])
    with pytest.raises(UserError, match=r"rollout\.variables: sea_ice_cover is not forecast"):
        wsdcast.rollout(run=copy, variables=["sea_ice_cover"], overwrite=True)


def test_scores_of_a_variable_do_not_depend_on_the_others(run, parts):
    """Scores of the wind are those of the wind alone, and scores of each variable have its units."""
    _, record, _ = parts
    forecast = forecast_of(run)
    times = forecast["time"].values[0] + forecast["prediction_timedelta"].values
    members = {name: forecast[name].values[0] for name in STATE}
    together = statistics_of(
        np.stack([members[name] for name in STATE], axis=2), truth_of(record, STATE).at(times), record.grid, None, STATE
    )
    for names in (DEFAULT, ("2m_temperature",)):
        alone = statistics_of(
            np.stack([members[name] for name in names], axis=2), truth_of(record, names).at(times), record.grid, None, names
        )
        for name, field in alone.items():
            other = together[name].sel(variable=alone["variable"]) if "variable" in field.dims else together[name]
            xr.testing.assert_allclose(other, field, rtol=1e-6)
    scores = xr.load_dataset(run / "scores.nc", decode_timedelta=True)
    units = dict(zip(scores["variable"].values, scores["units"].values, strict=True))
    assert (units["geopotential@500"], units["both"], units["10m_wind_speed"]) == ("m2 s-2", "m s-1", "m s-1")
    assert "units" not in scores["rmse"].attrs


def test_the_truth_of_a_prepared_store_is_its_record(run, parts):
    _, record, _ = parts
    names = ("geopotential@500", SST)
    truth = open_truth(str(run / "analysis.zarr"), run, record.test_from, names)
    assert truth.variables == names
    np.testing.assert_allclose(truth.at(record.times[[5, 3]]), record.states[np.array([5, 3])][:, [4, 5]], rtol=3e-7)
    assert np.isnan(truth.at(record.times[-1:] + STEP)).all()


def test_the_table_has_all_variables_with_units(run):
    table = pd.read_csv(run / "scores.csv")
    rmse = table[(table["metric"] == "rmse") & (table["region"] == "globe") & (table["forecast"] == "wsdcast")]
    assert set(rmse["variable"]) == {*STATE, "10m_wind_speed", "both", "vector"}
    assert set(rmse[rmse["variable"] == "2m_temperature"]["units"]) == {"K"}
    assert set(table[table["metric"] == "spread_skill"]["units"]) == {"1"}
    assert set(table[table["metric"] == "energy_score"]["variable"]) == {"vector"}


@pytest.mark.slow
def test_the_headline_is_that_of_the_recipe(run, tmp_path):
    """Without one it is the 10 m wind."""
    scores = xr.load_dataset(run / "scores.nc", decode_timedelta=True)
    of_wind = wsdcast.score(run=run)
    assert of_wind.facts["scores below"] == "10 m wind, m s-1"  # there are other variables too
    assert of_wind.scores[0]["rmse"] == float(scores["rmse"].sel(variable="both", region="globe", forecast="wsdcast")[0])
    recipe = tmp_path / "r.yaml"
    recipe.write_text(TINY + "score: {headline: 2m_temperature}\n")
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        if path.name not in ("scores.nc", "scores.csv", "report.html"):
            (copy / path.name).symlink_to(path)
    of_temperature = wsdcast.score(recipe, copy)
    assert of_temperature.scores[0]["rmse"] == float(scores["rmse"].sel(variable="2m_temperature", region="globe", forecast="wsdcast")[0])
    assert of_temperature.facts["scores below"] == "2 m air temperature, K"
    recipe.write_text(TINY + "score: {headline: nothing}\n")
    with pytest.raises(UserError, match=r"score\.headline: nothing was not scored"):
        wsdcast.score(recipe, copy)


def test_prescribed_forcings_must_be_in_the_record(run, parts):
    from wsdcast.weather.forecast.initial_times import starts_of

    recipe, record, _ = parts
    last = recipe.changed(rollout__start="latest", rollout__days=1.0, rollout__forcings="prescribed")
    with pytest.raises(UserError, match=f"the record lacks {SST} at .* and 2 more times"):
        starts_of(last, record)
    with pytest.raises(UserError, match=r"at \S+; hold them instead"):
        starts_of(last.changed(rollout__days=0.5), record)
    for changes, of in (({"rollout__forcings": "held"}, record), ({}, replace(record, forcing_variables=()))):
        assert starts_of(last.changed(**changes), of).tolist() == [record.times.size - 1]


def test_the_variables_that_forecast_and_truth_have_in_common_are_scored(run, tmp_path, without_animation, without_report):
    """A forecast without the record's wind is scored against the record; scores equal those of the run."""
    forecast = xr.open_zarr(run / "forecast.zarr", decode_timedelta=True)[["2m_temperature", "geopotential@500"]].drop_attrs(deep=False)
    levels = forecast["geopotential@500"].expand_dims(level=[500], axis=-3).drop_attrs().assign_attrs(units="m**2 s**-2")
    forecast["2m_temperature"].to_dataset().assign(geopotential=levels).load().to_netcdf(tmp_path / "theirs.nc")
    wsdcast.score_forecast(str(tmp_path / "theirs.nc"), str(run / "analysis.zarr"), tmp_path / "scores")
    theirs, ours = (xr.load_dataset(path / "scores.nc", decode_timedelta=True) for path in (tmp_path / "scores", run))
    assert list(theirs["variable"].values) == ["2m_temperature", "geopotential@500"]
    at = {"variable": ["2m_temperature", "geopotential@500"]}
    for name in ("crps_fair", "rmse", "variogram_score"):
        values, expected = theirs[name].isel(forecast=0).sel(at), ours[name].isel(forecast=0).sel(at)
        np.testing.assert_allclose(values.transpose(*expected.dims), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["out.nc", "out.zarr", "out.grib2"])
def test_a_forecast_is_converted_with_all_of_its_variables(run, tmp_path, name):
    """What is read back from each format is what the store has, to the packing of GRIB."""
    from wsdcast.data.sources.foreign_forecasts import open_channels
    from wsdcast.output.convert import convert

    to = {"out.nc": "netcdf", "out.zarr": "zarr", "out.grib2": "grib2"}[name]
    if to == "grib2":
        pytest.importorskip("eccodes")
    forecast = forecast_of(run)
    convert(run, to, tmp_path / name)  # type: ignore[arg-type]
    written = sorted(tmp_path.glob("out*"))[0]
    names = sorted(STATE)
    back = open_channels(str(written), part=True, variables=names)
    for channel in names:
        expected = forecast[channel].isel(time=slice(0, back.sizes["time"]))
        step = float(expected.max() - expected.min()) / 2**15 if to == "grib2" else 0
        np.testing.assert_allclose(back[channel].values.reshape(expected.shape), expected, rtol=1e-6, atol=step)
    if to == "netcdf":
        assert set(xr.open_dataset(written).data_vars) == {"t2m", "u10", "v10", "q_850", "z_500"}
