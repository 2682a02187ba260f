"""``wsdcast bench train``: a training step compared with the network alone, and with a step that loads its samples from disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsdcast.bench.measure import Benchmark, paired
from wsdcast.bench.synthetic import networks_of, record_of
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.zarr_store import close_store, create_store, open_store
from wsdcast.nets.unet import UNet
from wsdcast.runs import devices
from wsdcast.runs.artefact import resolve
from wsdcast.runs.devices import compiled, sent
from wsdcast.runs.overrides import Overridden
from wsdcast.training.batches import FlowBatch, flow_batches_of, pairs_of
from wsdcast.training.loop import BatchOf, Plan, fit, read
from wsdcast.training.state import Training
from wsdcast.warmstart.flow import LOSS_WEIGHTS, draw, training_loss
from wsdcast.warmstart.prior import InformedPrior
from wsdcast.weather.harmonic_transform import weather_path
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import samples_of

STEPS, ROUNDS = 10, 4
RECORD = 1500
"""Number of states in the record."""


def bench_train(recipe: str | Overridden = "planet") -> Benchmark:
    """Measure training steps of the generator on a record of random wind, with the recipe's batch size, precision and compilation.

    Args:
        recipe: path or name of a recipe, or a recipe with overridden keys.

    Returns:
        The limit is the time of the same loop with one batch that stays on the device: forward pass, backward pass and optimiser, without
        the making of batches. The peer is the same loop with samples that two worker processes load from a Zarr store with xarray.

    Raises:
        UserError: if the prior is a user's model, or there is no generator.
    """
    resolved, _ = resolve(recipe, None, Recipe, generator__steps=10**6, generator__accumulate=1)
    settings, record = resolved.generator, record_of(resolved, RECORD)
    devices.keep_freed_memory()
    networks = networks_of(resolved, record)
    generator, forcings = networks.generator.train().requires_grad_(), networks.forcings
    if settings.compile:
        compiled(generator)
    (samples,) = samples_of(record, forcings, "train")
    random = torch.Generator(devices.device()).manual_seed(0)
    torch.backends.cudnn.benchmark = True
    predicted = torch.ones(len(samples), *samples.shape, device=devices.device())  # in training, moments are kept in the same way

    def prior_of(indices: Tensor, _: Tensor) -> InformedPrior:
        moments = predicted[sent(indices, predicted.device)]
        return InformedPrior(moments, moments)

    batches = flow_batches_of(pairs_of(samples), samples.shape, random, prior_of, settings.times)
    fixed = batches(torch.arange(settings.batch), slice(None))
    path, waiting = weather_path(settings, record.grid), list[float]()

    def loss_of(network: UNet, batch: FlowBatch) -> Tensor:
        assert batch.prior is not None
        return training_loss(network, batch.prior, batch.context, batch.target, batch.draws, path, LOSS_WEIGHTS[settings.loss_weight])

    def steps(batch_of: BatchOf[FlowBatch], shares: list[float]) -> Callable[[], None]:
        running = fit(Training.of(generator, random), Plan(batch_of, loss_of, len(samples), settings, seed=0))
        return lambda: shares.extend(step.waiting for step in read([next(running) for _ in range(STEPS)]))

    directory = Path(tempfile.mkdtemp(prefix="wsdcast-bench-"))
    try:
        loaded = iter(_loader(record, directory / "analysis.zarr", settings.batch))

        def from_disk(indices: Tensor, local: slice) -> FlowBatch:
            *states, target = (x.to(devices.device()) for x in next(loaded))
            context = torch.cat([*states[::-1], fixed.context[:, len(states) * len(record.variables) :]], dim=1)
            return FlowBatch(context, target, draw(tuple(target.shape), random), fixed.prior)

        loops = steps(batches, waiting), steps(lambda indices, local: fixed, []), steps(from_disk, [])
        # In the first round a GPU compiles kernels.
        names = (f"{STEPS} steps", f"{STEPS} steps with one batch", f"{STEPS} steps with samples from disk")
        ours, bare, usual = paired(*loops, rounds=ROUNDS, names=names)
    finally:
        shutil.rmtree(directory)
    figures = {
        "network": f"{sum(x.numel() for x in generator.parameters()) / 1e6:.2f} M parameters, {record.grid.name}, {settings.precision}",
        "time per step, ms": 1e3 * ours / STEPS,
        "samples/s": settings.batch * STEPS / ours,
        "share of time for making batches": float(np.median(waiting)),
    }
    limit = f"forward pass, backward pass and optimiser on one batch of {settings.batch} that stays on the device"
    return Benchmark("train", limit, ours / bare, {"samples from disk": usual / bare}, figures)


class _FromDisk(Dataset[tuple[Tensor, ...]]):
    """Samples of consecutive states, those of a context and the target, read from a store with xarray."""

    def __init__(self, path: Path, record: Analysis) -> None:
        self.path, self.record = path, record

    @cached_property
    def store(self) -> xr.Dataset:
        """The store. Each worker opens it once."""
        return open_store(self.path)

    def __len__(self) -> int:
        return self.record.times.size - 1 - self.record.past_states

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        chosen = self.store.isel(time=slice(index, index + 2 + self.record.past_states))
        names = (*self.record.variables, *self.record.forcing_variables)
        states = self.record.normalise(np.stack([chosen[name].values for name in names], axis=1))
        return tuple(torch.from_numpy(state[: len(self.record.variables)]) for state in states)


def _loader(record: Analysis, path: Path, batch: int) -> DataLoader[tuple[Tensor, ...]]:
    """Write the record to a store at ``path``, and return a loader of its samples with two workers."""
    arrays = create_store(path, {"time": record.times}, record.grid, (*record.variables, *record.forcing_variables), (1,))
    for array, states in zip(arrays, record.states[:].swapaxes(0, 1), strict=True):
        array[:] = states
    close_store(path, {})
    return DataLoader(_FromDisk(path, record), batch, shuffle=True, num_workers=2, drop_last=True, multiprocessing_context="spawn")
