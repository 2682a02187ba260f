"""``wsdcast bench rollout``: a rollout compared with its networks alone, and with a simple loop (the usual way)."""

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
from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import operations
from wsdcast.runs import devices
from wsdcast.runs.artefact import resolve
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.progress import note
from wsdcast.sampling.acceleration import accelerated
from wsdcast.sampling.batches import batch_size, in_batches
from wsdcast.sampling.samplers import Sampler
from wsdcast.sampling.threads import side_by_side
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.weather.forecast.noise import member_noise
from wsdcast.weather.forecast.running import groups
from wsdcast.weather.forecast.writing import run_and_write
from wsdcast.weather.recipe import Recipe, Rollout
from wsdcast.weather.samplers import few_sampler, sampler_of
from wsdcast.weather.trained import Trained

ROUNDS = 3
LONG = 10.0
"""A rollout that takes more seconds than this is measured once, not :data:`ROUNDS` times."""
USUAL_MEMBERS = 2
"""Number of members that are run the usual way. The time of all members is estimated from their time."""
ROWS = {"cuda": 8192, "cpu": 2048}
"""Rows of the square matrices whose product is timed, by kind of device."""


@torch.inference_mode()
def bench_rollout(
    recipe: str | Overridden = "planet", *, members: int | None = None, nfe: int | None = None, days: float | None = None
) -> Benchmark:
    """Measure a rollout from one initial time into a store. Networks are untrained and the wind is random: this takes the same time.

    Args:
        recipe: path or name of a recipe, or a recipe with overridden keys, for its grid and networks.
        members, nfe, days: size of the forecast; None: as in the recipe.

    Returns:
        The limit is the time of the networks alone: the evaluations that the samples of the forecast need, of the generator and, if the
        prior has one, of the moments network, accelerated in the same way, and nothing else. The peer ``the usual way`` does the same work
        one member at a time, eager, in float32, with torchdiffeq's solver, and writes the forecast at the end.

    Raises:
        UserError: if the prior is a user's model, or there is no generator.
    """
    changes: dict[str, Any] = {"members": members, "nfe": nfe, "days": days, "solver": "midpoint"}
    resolved, _ = resolve(recipe, None, Recipe, **{f"rollout__{key}": value for key, value in changes.items()})
    settings, record = resolved.rollout, record_of(resolved, 100)
    devices.keep_freed_memory()
    networks = networks_of(resolved, record)
    generator = networks.few.get(settings.nfe, networks.generator)
    moments = networks.moments if isinstance(networks.moments, MomentsModel) else None
    device = devices.device()
    largest_batch = batch_size(record.grid.size, device)
    batches = -(-settings.members // largest_batch)
    sizes = [part.numel() for part in torch.arange(settings.members).tensor_split(batches)]
    # On a CPU the last batch is filled up with repetitions.
    evaluated = sum(sizes) if device.type != "cpu" else batches * largest_batch
    starts = np.array([record.past_states], dtype=np.intp)
    figures: dict[str, Any] = {
        "forecast": f"{settings.members} members x {settings.steps} steps of 6 h, {record.grid.name}, NFE {settings.nfe}"
    }
    begin = time.perf_counter()
    the_usual_way(record, networks, settings, USUAL_MEMBERS)
    usual = (time.perf_counter() - begin) * settings.members / USUAL_MEMBERS
    note(f"the usual way: {usual:.1f} s")
    generator_operations, moments_operations = (
        operations(network, *inputs_of(network, 1, record.grid)) if network else 0 for network in (generator, moments)
    )
    sampler = sampler_of(networks, settings)
    directory = Path(tempfile.mkdtemp(prefix="wsdcast-bench-"))

    def rollout(steps: int = settings.steps) -> None:
        shortened = settings.model_copy(update={"days": steps / 4})
        store = Forecasts(
            directory / "forecast.zarr", record.times[starts], shortened.members, shortened.leads, False, record.grid, record.variables
        )
        (directory / "forecast.marks").mkdir(exist_ok=True)
        store.create()
        all_groups = groups(np.arange(1), shortened.members, largest_batch, device)
        for _ in run_and_write(store, record, networks.forcings, in_batches(sampler, largest_batch), starts, all_groups, shortened):
            pass

    def alone(network: MomentsModel | UNet, evaluations: int) -> Callable[..., None]:
        """Return a function that evaluates one network: all batches, ``evaluations`` times for each lead time."""
        calls: list[tuple[Sampler, Tensor]] = []
        for size in sizes:
            x, *other_inputs = inputs_of(network, size, record.grid)
            # The other inputs do not change, so a CUDA graph may keep them.
            calls.append((accelerated(partial(_from_first_input, network, other_inputs), [network]), x))

        def evaluate(steps: int = settings.steps) -> None:
            side_by_side(lambda call: call[0](call[1], call[1]), calls * (evaluations * steps), device)
            _wait()

        return evaluate

    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        rollout(1)  # compiles the networks
        note(f"the first lead time, in which a GPU compiles kernels: {time.perf_counter() - begin:.1f} s")
        begin = time.perf_counter()
        rollout(1)
        expected = (time.perf_counter() - begin) * settings.steps
        note(f"the rollout, by its next lead time: {expected:.1f} s")
        if device.type == "cuda":  # before the networks alone, which have CUDA graphs of their own
            figures["peak memory of the GPU, GiB"] = torch.cuda.max_memory_allocated() / 2**30
        rounds = ROUNDS if expected < LONG else 1
        networks_alone = [alone(generator, settings.nfe), *([alone(moments, 1)] if moments else [])]
        for evaluate_alone in networks_alone:
            evaluate_alone(1)  # records a CUDA graph on a GPU
        with memory_curve() as curve:
            names = ("the rollout", "the generator alone", "the moments network alone")
            ours, generator_alone, *of_moments = paired(rollout, *networks_alone, rounds=rounds, names=names)
    finally:
        shutil.rmtree(directory)
    samples = settings.members * settings.steps
    operations_per_sample = settings.nfe * generator_operations + moments_operations
    limit_seconds = generator_alone + sum(of_moments)
    figures |= {
        "rollout, s": ours,
        "time per sample, ms": 1e3 * ours / samples,
        "generator alone, s": generator_alone,
    }
    if moments:
        figures |= {
            "moments network alone, s": sum(of_moments),
            "moments network's share of time": sum(of_moments) / limit_seconds,
            "moments network's share of operations": moments_operations / operations_per_sample,
        }
    figures |= {
        "arithmetic, TFLOP/s": 1e-12 * samples * operations_per_sample / ours,
        "share of a matrix product's rate": samples * operations_per_sample / ours / _matrix_rate(),
        "share of padding": 1 - settings.members / evaluated,
        "peak memory, GiB": max(memory for _, memory in curve),
    }
    limit = (
        f"{settings.nfe} evaluation{'s' * (settings.nfe > 1)} of the generator{' and one of the moments network' * bool(moments)} "
        f"for each sample, nothing else, in batches of {max(sizes)}, on a CPU one on each core"
    )
    return Benchmark("rollout", limit, ours / limit_seconds, {"the usual way": usual / limit_seconds}, figures)


def the_usual_way(record: Analysis, networks: Trained, settings: Rollout, members: int) -> NDArray[np.float32]:
    """Make the same forecast with a simple loop, and write it. Return the fields (member, lead, variable, latitude, longitude)."""
    device, count = devices.device(), len(record.variables)
    shape, mean_of_data, std_of_data = (count, *record.grid.shape), record.mean[:count, None, None], record.std[:count, None, None]
    generator, forcings, path = networks.generator, networks.forcings, networks.path
    times = torch.linspace(0, 1, settings.nfe // 2 + 1, device=device)
    time = record.times[record.past_states : record.past_states + 1]
    noises = list(member_noise(settings.seed, time, members, settings.steps, shape))
    first = torch.from_numpy(record.normalise(record.states[: 1 + record.past_states])).to(device)[:, None]
    held, all_states = first[-1][:, count:], []
    for member in range(members):
        states = list(first[:, :, :count])
        for step in range(settings.steps):
            context = torch.cat([*states[: -2 - record.past_states : -1], forcings.at(time + step * STEP), held], dim=1)
            noise = noises[step][member : member + 1].to(device)
            if few := networks.few.get(settings.nfe):
                states.append(few_sampler(networks, few, settings.nfe)(context, noise))
                continue
            prior = networks.prior_of(context)
            inputs, one = torch.cat([context, prior.features()], dim=1), torch.ones(1, device=device)

            def velocity(t: torch.Tensor, x: torch.Tensor, inputs: torch.Tensor = inputs, one: torch.Tensor = one) -> torch.Tensor:
                t = t.reshape(1)
                return path.velocity(generator(torch.cat([x, inputs], dim=1), t, one), x, t)

            states.append(prior.denormalise(odeint(velocity, path.start(noise), times, method="midpoint")[-1]))
        forecast = torch.cat(states[1 + record.past_states :])
        all_states.append(forecast.cpu().numpy() * std_of_data + mean_of_data)
    fields = np.stack(all_states)
    dimensions = ("number", "prediction_timedelta", "latitude", "longitude")
    with tempfile.TemporaryDirectory(prefix="wsdcast-bench-") as directory:
        store = xr.Dataset({name: (dimensions, fields[:, :, channel]) for channel, name in enumerate(record.variables)})
        store.to_zarr(Path(directory) / "forecast.zarr", zarr_format=3, consolidated=False)
    return fields


def _from_first_input(network: torch.nn.Module, other_inputs: list[Tensor], x: Tensor, _: Tensor) -> Tensor:
    """Evaluate a network for its first input ``x``. With the other inputs fixed, it has the signature of a sampler."""
    output = network(x, *other_inputs)
    return output[0] if isinstance(output, tuple) else output


def _matrix_rate() -> float:
    """Return the operations per second of a product of large matrices, in the precision of a rollout."""
    device = devices.device()
    size = ROWS[device.type]
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)

    def product() -> None:
        matrix @ matrix
        _wait()

    return 2 * size**3 / paired(product, rounds=10)[0]


def _wait() -> None:
    if devices.device().type == "cuda":
        torch.cuda.synchronize()
