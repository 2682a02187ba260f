"""Short trainings of one or few evaluations, and what their runs hold."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from wsdcast.data.store.analysis import open_analysis
from wsdcast.weather.forcings import forcings_of
from wsdcast.weather.network_sections import Forcings
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import Samples, samples_of
from wsdcast.weather.trained import Trained, trained

SMALL = {"few_steps__steps": 3, "few_steps__batch": 4, "few_steps__flow_share": 0.75}
TUNED = {"fine_tune__steps": 3, "fine_tune__batch": 2, "fine_tune__rollout": [1, 2]}


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / name / "weights.safetensors")


def opened(recipe: Recipe, run: Path) -> tuple[Trained, Samples, torch.Tensor, torch.Tensor]:
    """Return the networks, the samples of the training split, a batch of contexts, and noise."""
    record = open_analysis(run / "analysis.zarr")
    networks = trained(recipe, run, record)
    (samples,) = samples_of(record, networks.forcings, "train")
    return networks, samples, samples.context(torch.arange(3)), torch.randn(3, 2, 8, 16, generator=torch.Generator().manual_seed(0))


def training_samples(prepared: Path) -> Samples:
    """Return the samples of the training split of the prepared record."""
    record = open_analysis(prepared / "run/analysis.zarr")
    (samples,) = samples_of(record, forcings_of(record, Forcings(), torch.device("cpu")), "train")
    return samples
