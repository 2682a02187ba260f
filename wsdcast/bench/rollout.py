"""How close a rollout comes to its networks alone, and how far the usual way is from that."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torchdiffeq import odeint

from wsdcast.bench.measure import Benchmark, memory_curve, paired
from wsdcast.bench.synthetic import inputs_of, networks_of, record_of
from wsdcast.data.steps import STEP
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.forecasts import Forecasts
from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.nets.weights import operations
from wsdcast.runs import devices
from wsdcast.runs.artefact import resolve
from wsdcast.runs.overrides import Overridden
from wsdcast.sampling.acceleration import accelerated
from wsdcast.sampling.batches import batch_size, in_batches
from wsdcast.sampling.samplers import Sampler
from wsdcast.sampling.threads import side_by_side
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.warmstart.prior import warm_start
from wsdcast.weather.forcings import Surroundings
from wsdcast.weather.forecast.autoregression import member_noise
from wsdcast.weather.forecast.running import groups
from wsdcast.weather.forecast.writing import run_and_write
from wsdcast.weather.priors import Trained
from wsdcast.weather.recipe import Recipe, Rollout
from wsdcast.weather.samplers import sampler_of

ROUNDS = 3
LONG = 10.0
"""Seconds of a rollout that is measured once, not :data:`ROUNDS` times."""
USUAL_MEMBERS = 2
"""Members that are run the usual way; the time of all is so many times longer."""


@torch.inference_mode()
def bench_rollout(
    recipe: str | Overridden = "planet", *, members: int | None = None, nfe: int | None = None, days: float | None = None
) -> Benchmark:
    """Measure a rollout of one start into a store, with untrained networks and made-up wind, which take as long as real ones.

    Args:
        recipe: path or name of a recipe, or a recipe with overridden keys, for its grid and networks.
        members, nfe, days: of the forecast; what is None is as in the recipe.

    Returns:
        The limit is the networks alone on just the samples that were asked for: as many evaluations of both, nothing else, accelerated
        alike. ``the usual way`` does the same work one member at a time, eager, in float32, with torchdiffeq's solver, and writes at the
        end.
    """
    changes: dict[str, Any] = {"members": members, "nfe": nfe, "days": days, "solver": "midpoint"}
    resolved, _ = resolve(recipe, None, Recipe, **{f"rollout__{key}": value for key, value in changes.items()})
    settings, record = resolved.rollout, record_of(resolved, 100)
    devices.keep_freed_memory()
    moments, generator, beside = networks_of(resolved, record.grid)
    moments.eval(), generator.eval()
    device = devices.device()
    most = batch_size(record.grid.latitude.size * record.grid.longitude.size, device)
    batches = -(-settings.members // most)
    sizes = [part.numel() for part in torch.arange(settings.members).tensor_split(batches)]
    evaluated = sum(sizes) if device.type != "cpu" else batches * most  # there the last batch is filled up
    starts = np.array([1], dtype=np.intp)
    figures: dict[str, Any] = {
        "forecast": f"{settings.members} members x {settings.steps} steps of 6 h, {record.grid.name}, NFE {settings.nfe}"
    }
    begin = time.perf_counter()
    the_usual_way(record, moments, generator, beside, settings, USUAL_MEMBERS)
    usual = (time.perf_counter() - begin) * settings.members / USUAL_MEMBERS
    counted = [operations(network, *inputs_of(network, 1, record.grid)) for network in (generator, moments)]
    sampler = sampler_of(Trained(generator, moments, warm_start(moments), beside), settings)
    place = Path(tempfile.mkdtemp(prefix="wsdcast-bench-"))

    def rollout(steps: int = settings.steps) -> None:
        how = settings.model_copy(update={"days": steps / 4})
        store = Forecasts(place / "forecast.zarr", record.times[starts], how.members, how.leads, False, record.grid)
        (place / "forecast.marks").mkdir(exist_ok=True)
        store.create()
        mine = groups(np.arange(1), how.members, most, device)
        for _ in run_and_write(store, record, beside, in_batches(sampler, most), starts, mine, how):
            pass

    def alone(network: torch.nn.Module, times: int) -> Callable[..., None]:
        """All evaluations of one network: every batch of a step, ``times`` for each lead time."""
        calls: list[tuple[Sampler, Tensor]] = []
        for size in sizes:
            x, *rest = inputs_of(network, size, record.grid)
            # Its other inputs do not change; a graph keeps them as they are.
            calls.append((accelerated(partial(_first_alone, network, rest), [network]), x))

        def evaluate(steps: int = settings.steps) -> None:
            side_by_side(lambda call: call[0](call[1], call[1]), calls * (times * steps), device)
            _wait()

        return evaluate

    try:
        rollout(1)  # compiles
        begin = time.perf_counter()
        rollout(1)
        rounds = ROUNDS if (time.perf_counter() - begin) * settings.steps < LONG else 1
        both = [alone(generator, settings.nfe), alone(moments, 1)]
        for one in both:
            one(1)  # records
        with memory_curve() as curve:
            ours, *bare = paired(rollout, *both, rounds=rounds)
    finally:
        shutil.rmtree(place)
    samples = settings.members * settings.steps
    work = settings.nfe * counted[0] + counted[1]  # of a sample
    rate = _matrix_rate()
    figures |= {
        "rollout, s": ours,
        "a sample, ms": 1e3 * ours / samples,
        "generator alone, s": bare[0],
        "moments network alone, s": bare[1],
        "moments network's share": bare[1] / sum(bare),
        "and in operations": counted[1] / work,
        "arithmetic, TFLOP/s": 1e-12 * samples * work / ours,
        "of a product of large matrices": samples * work / ours / rate,
        "padded share": 1 - settings.members / evaluated,
        "peak memory, GiB": max(memory for _, memory in curve),
    }
    if device.type == "cuda":
        figures["peak memory of the GPU, GiB"] = torch.cuda.max_memory_allocated() / 2**30
    limit = (
        f"{settings.nfe} evaluations of the generator and one of the moments network for each sample, nothing else, "
        f"in batches of {max(sizes)}, on a CPU one on each core"
    )
    return Benchmark("rollout", limit, ours / sum(bare), {"the usual way": usual / sum(bare)}, figures)


def the_usual_way(
    record: Analysis, moments: MomentsModel, generator: torch.nn.Module, beside: Surroundings, settings: Rollout, members: int
) -> NDArray[np.float32]:
    """The same forecast as anyone would write it first, (member, lead, channel, latitude, longitude), m s-1."""
    device, shape = devices.device(), record.wind.shape[1:]
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


def _first_alone(network: torch.nn.Module, rest: list[Tensor], x: Tensor, _: Tensor) -> Tensor:
    """A network as a sampler of its first input."""
    found = network(x, *rest)
    return found[0] if isinstance(found, tuple) else found


def _matrix_rate() -> float:
    """Operations per second of a product of large matrices, in the precision of a rollout."""
    on_gpu = devices.device().type == "cuda"
    size = 8192 if on_gpu else 2048
    matrix = torch.randn(size, size, device=devices.device(), dtype=torch.bfloat16 if on_gpu else torch.float32)

    def product() -> None:
        matrix @ matrix
        _wait()

    return 2 * size**3 / paired(product, rounds=10)[0]


def _wait() -> None:
    if devices.device().type == "cuda":
        torch.cuda.synchronize()
