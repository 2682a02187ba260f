"""How close a rollout comes to its networks alone, and how far the usual way is from that."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torchdiffeq import odeint

from wsdcast import models
from wsdcast.bench.measure import Benchmark, memory_curve, paired
from wsdcast.bench.synthetic import inputs_of, networks_of, record_of
from wsdcast.context import Surroundings
from wsdcast.data.analysis import STEP, Analysis
from wsdcast.data.forecasts import Forecasts
from wsdcast.data.store import VARIABLES
from wsdcast.forecasting.acceleration import accelerated
from wsdcast.forecasting.ensemble import at_once, batch_size, in_batches, member_noise
from wsdcast.forecasting.running import groups
from wsdcast.forecasting.sampling import sampler_of
from wsdcast.forecasting.threads import side_by_side
from wsdcast.forecasting.writing import run_and_write
from wsdcast.priors import Trained
from wsdcast.recipe import Rollout, load_recipe
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.warmstart.prior import warm_start

ROUNDS = 3
USUAL_MEMBERS = 2
"""Members that are run the usual way; the time of all is so many times longer."""


@torch.inference_mode()
def bench_rollout(recipe: str = "planet", *, members: int | None = None, nfe: int | None = None, days: float | None = None) -> Benchmark:
    """Measure a rollout of one start into a store, with untrained networks and made-up wind, which take as long as real ones.

    Args:
        recipe: path or name of a recipe, for its grid and networks.
        members, nfe, days: of the forecast; what is None is as in the recipe.

    Returns:
        The limit is the networks alone at the same batch: as many evaluations of both, nothing else. ``the usual way`` does the same
        work one member at a time, eager, in float32, with torchdiffeq's solver, and writes at the end.
    """
    resolved = load_recipe(recipe).changed(rollout__members=members, rollout__nfe=nfe, rollout__days=days, rollout__solver="midpoint")
    settings, record = resolved.rollout, record_of(resolved, 100)
    models.keep_freed_memory()
    moments, generator, beside = networks_of(resolved, record.grid)
    moments.eval(), generator.eval()
    batch = batch_size(record.grid.latitude.size * record.grid.longitude.size, models.device())
    starts = np.array([1], dtype=np.intp)
    batches = -(-settings.members // batch) * settings.steps
    figures: dict[str, Any] = {
        "forecast": f"{settings.members} members x {settings.steps} steps of 6 h, {record.grid.name}, NFE {settings.nfe}"
    }
    begin = time.perf_counter()
    the_usual_way(record, moments, generator, beside, settings, USUAL_MEMBERS)
    usual = (time.perf_counter() - begin) * settings.members / USUAL_MEMBERS
    operations = [models.operations(network, *inputs_of(network, 1, record.grid)) for network in (generator, moments)]
    sampler = accelerated(sampler_of(Trained(generator, moments, warm_start(moments), beside), settings), [moments, generator], False)
    place = Path(tempfile.mkdtemp(prefix="wsdcast-bench-"))

    def rollout() -> None:
        store = Forecasts(place / "forecast.zarr", record.times[starts], settings.members, settings.leads, False, record.grid)
        (place / "forecast.marks").mkdir(exist_ok=True)
        store.create()
        mine = groups(np.arange(1), settings.members, at_once(batch, models.device()))
        for _ in run_and_write(store, record, beside, in_batches(sampler, batch), starts, mine, settings):
            pass

    def alone(network: torch.nn.Module, times: int) -> Callable[[], None]:
        inputs = inputs_of(network, batch, record.grid)

        def call(_: int) -> None:
            with torch.autocast("cuda", torch.bfloat16, enabled=models.device().type == "cuda"):
                network(*inputs)

        def evaluate() -> None:
            side_by_side(call, range(times), models.device())
            _wait()

        return evaluate

    try:
        rollout()  # compiles
        both = [alone(generator, batches * settings.nfe), alone(moments, batches)]
        with memory_curve() as curve:
            ours, *bare = paired(rollout, *both, rounds=ROUNDS)
    finally:
        shutil.rmtree(place)
    samples = settings.members * settings.steps
    work = settings.nfe * operations[0] + operations[1]  # of a sample
    rate = _matrix_rate()
    figures |= {
        "rollout, s": ours,
        "a sample, ms": 1e3 * ours / samples,
        "generator alone, s": bare[0],
        "moments network alone, s": bare[1],
        "moments network's share": bare[1] / sum(bare),
        "and in operations": operations[1] / work,
        "arithmetic, TFLOP/s": 1e-12 * samples * work / ours,
        "of a product of large matrices": samples * work / ours / rate,
        "peak memory, GiB": max(memory for _, memory in curve),
    }
    limit = (
        f"{settings.nfe} evaluations of the generator and one of the moments network for each sample, nothing else, "
        f"in batches of {batch}, on a CPU one on each core"
    )
    return Benchmark("rollout", limit, ours / sum(bare), {"the usual way": usual / sum(bare)}, figures)


def the_usual_way(
    record: Analysis, moments: MomentsModel, generator: torch.nn.Module, beside: Surroundings, settings: Rollout, members: int
) -> NDArray[np.float32]:
    """The same forecast as anyone would write it first, (member, lead, channel, latitude, longitude), m s-1."""
    device, shape = models.device(), record.wind.shape[1:]
    times = torch.linspace(0, 1, settings.nfe // 2 + 1, device=device)
    noises = list(member_noise(settings.seed, record.times[1:2], members, settings.steps, shape))
    done = []
    for member in range(members):
        before, now = torch.from_numpy(record.normalise(record.wind[0:2])).to(device)[:, None]
        states = []
        for step in range(settings.steps):
            context = torch.cat([now, before, beside.at(record.times[1:2] + step * STEP)], dim=1)
            mean, std = moments(context)
            fixed, one = torch.cat([context, mean, std.log()], dim=1), torch.ones(1, device=device)

            def velocity(t: torch.Tensor, x: torch.Tensor, fixed: torch.Tensor = fixed, one: torch.Tensor = one) -> torch.Tensor:
                return generator(torch.cat([x, fixed], dim=1), t.reshape(1), one)

            x = odeint(velocity, noises[step][member : member + 1].to(device), times, method="midpoint")[-1]
            now, before = x * std + mean, now
            states.append(record.denormalise(now[0].cpu().numpy()))
        done.append(np.stack(states))
    wind = np.stack(done)
    dimensions = ("number", "prediction_timedelta", "latitude", "longitude")
    with tempfile.TemporaryDirectory(prefix="wsdcast-bench-") as place:
        store = xr.Dataset({name: (dimensions, wind[:, :, channel]) for channel, name in enumerate(VARIABLES)})
        store.to_zarr(Path(place) / "forecast.zarr", zarr_format=3, consolidated=False)
    return wind


def _matrix_rate() -> float:
    """Operations per second of a product of large matrices, in the precision of a rollout."""
    on_gpu = models.device().type == "cuda"
    size = 8192 if on_gpu else 2048
    matrix = torch.randn(size, size, device=models.device(), dtype=torch.bfloat16 if on_gpu else torch.float32)

    def product() -> None:
        matrix @ matrix
        _wait()

    return 2 * size**3 / paired(product, rounds=10)[0]


def _wait() -> None:
    if models.device().type == "cuda":
        torch.cuda.synchronize()
