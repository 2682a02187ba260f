"""``wsdcast bench score``: scoring compared with reading the forecast, and CRPS compared with other libraries."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import properscoring
import xarray as xr

from wsdcast.bench.measure import Benchmark, memory_curve, paired
from wsdcast.data.grid import Grid
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, Forecasts, Written
from wsdcast.data.store.zarr_store import open_store
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.unfinished import marks_of
from wsdcast.verification.kernels import fair_crps, ranked
from wsdcast.verification.kinetic_energy import kinetic_energy_statistics
from wsdcast.verification.metrics import joint_statistics, statistics

GRID, MEMBERS = "240x121", 50
ROUNDS = 3


def bench_score() -> Benchmark:
    """Measure all statistics of one chunk of a forecast, 50 members and eight lead times of u and v at 1.5 degrees, without baselines.

    Returns:
        The limit is the time to read the chunk from disk, when all of it is in the system's cache. The peers compute only CRPS, from the
        same arrays in memory.
    """
    grid, random = Grid.regular(GRID), np.random.default_rng(0)
    leads = tuple(6 * lead for lead in range(1, LEADS_PER_CHUNK + 1))
    wind = 8 * random.standard_normal((MEMBERS, len(leads), 2, *grid.shape), dtype=np.float32)
    truth = 8 * random.standard_normal((len(leads), 2, *grid.shape), dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="wsdcast-bench-") as directory:
        store = Forecasts(
            Path(directory) / "forecast.zarr", np.array(["2020-01-01"], "datetime64[ns]"), MEMBERS, leads, False, grid, DEFAULT
        )
        store.create()
        store.write(0, 0, wind)
        marks_of(store.path).mkdir()
        store.mark(0, Written([0] * MEMBERS, [""] * MEMBERS, {}))
        store.close({})

        def read() -> Any:
            with open_store(store.path) as dataset:
                return np.stack([dataset[name].isel(time=0).values for name in DEFAULT], axis=-3)

        def score_marginals() -> None:
            statistics(read(), truth, grid)

        def score_all() -> None:
            ensemble = read()
            statistics(ensemble, truth, grid)
            joint_statistics(ensemble, truth, grid)

        def score_degrees() -> None:
            kinetic_energy_statistics(wind, truth, grid)

        score_degrees()  # makes the tables of Legendre functions
        score_all()  # compiles the kernels
        with memory_curve() as curve:
            limit, marginals, ours, degrees = paired(read, score_marginals, score_all, score_degrees, rounds=ROUNDS)
    fields = truth.shape[0] * truth.shape[1]
    peers = _peers(wind, truth)
    own_crps, *peer_seconds = paired(lambda: fair_crps(ranked(wind, truth)), *peers.values(), rounds=ROUNDS)
    seconds_of = dict(zip(peers, peer_seconds, strict=True))
    figures = {
        "forecast": f"{MEMBERS} members x {len(leads)} leads x u and v, {GRID}, {wind.nbytes / 1e6:.0f} MB",
        "reading, s": limit,
        "marginal scores, with reading, s": marginals,
        "all scores, with reading, s": ours,
        "kinetic energy by degree, in addition, s": degrees,
        "CRPS, fields/s": fields / own_crps,
        "CRPS / reading": own_crps / limit,
        "peak memory, GiB": max(memory for _, memory in curve),
    }
    figures |= {f"CRPS by {name}, fields/s": fields / seconds for name, seconds in seconds_of.items()}
    ratios = {f"CRPS by {name}": seconds / limit for name, seconds in seconds_of.items()}
    return Benchmark("score", "reading the same chunk of the forecast", ours / limit, ratios, figures)


def _peers(wind: Any, truth: Any) -> dict[str, Callable[[], Any]]:
    """Return the functions that compute CRPS with other libraries, by the name of the library, if it is installed."""
    members_last = np.ascontiguousarray(np.moveaxis(wind, 0, -1))  # the order in which these libraries are fastest
    peers: dict[str, Callable[[], Any]] = {"properscoring": lambda: properscoring.crps_ensemble(truth, members_last)}
    if find_spec("scoringrules"):
        import scoringrules

        # This estimator is also the fair CRPS, and the fastest of this library.
        peers["scoringrules"] = lambda: scoringrules.crps_ensemble(truth, members_last, estimator="pwm")
    if find_spec("xskillscore"):
        import xskillscore

        names = ("lead", "channel", "latitude", "longitude")
        forecast, observed = xr.DataArray(wind, dims=("member", *names)), xr.DataArray(truth, dims=names)
        peers["xskillscore"] = lambda: xskillscore.crps_ensemble(observed, forecast, dim=[])
    return peers
