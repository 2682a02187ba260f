"""Statistics of a trained generator for DPM-Solver-v3."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from wsdcast.data.store.analysis import open_analysis
from wsdcast.runs import devices
from wsdcast.runs.artefact import Summary, complete, make_stamp, read_stamp, require, resolve
from wsdcast.runs.names import ANALYSIS, GENERATOR, STATISTICS
from wsdcast.warmstart.flow import velocity_of
from wsdcast.warmstart.prior import Moments
from wsdcast.warmstart.solver_statistics import estimate_statistics
from wsdcast.warmstart.solvers import Velocity
from wsdcast.weather.priors import trained
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import samples_of

BATCH = 32
ENDS = (-5.0, 5.0)
"""The statistics cover the log signal-to-noise ratios between these two. Outside, those of the nearer end are used."""


@torch.inference_mode()
def study_statistics(
    recipe: str | Path | Recipe | None = None,
    run: str | Path | None = None,
    *,
    samples: int = 64,
    levels: int = 25,
    warmth: float | None = None,
    moments: Moments | None = None,
) -> Summary:
    """Estimate the statistics of the trained generator that the solver ``dpm3-v3`` needs, and write them to ``RUN/statistics``.

    The statistics are averaged over longitudes, because the networks can tell longitudes apart only by their forcings. They take seconds to
    estimate. Statistics of another generator or with other arguments are replaced.

    Args:
        recipe: path or name of a recipe; default: the one of the trained generator.
        run: run directory; default ``runs/<recipe name>``.
        samples: number of training samples, spread evenly over the training split. Each costs five evaluations at each level.
        levels: number of log signal-to-noise ratios, evenly spaced.
        warmth: w of Eq. 4 at which samples will be drawn; default: the recipe's.
        moments: the model that a generator with the prior ``given`` was trained with.

    Raises:
        UserError: if the networks are missing or were made from another recipe.
    """
    resolved, directory = resolve(recipe, run, Recipe, GENERATOR, rollout__warmth=warmth)
    record = open_analysis(require(resolved, directory, ANALYSIS, "prepare"))
    devices.keep_freed_memory()
    networks = trained(resolved, directory, record, moments)
    summary = Summary("study statistics")
    about = f"{samples} samples, {levels} levels, warmth {resolved.rollout.warmth:g}"
    stamp = make_stamp(resolved, directory, STATISTICS, about)
    stored = read_stamp(directory / STATISTICS)
    if stored is not None and stored["id"] == stamp["id"]:
        summary.facts["current"] = str(directory / STATISTICS)
        return summary
    (training,) = samples_of(record, networks.forcings, "train")
    chosen = torch.arange(0, len(training), max(1, len(training) // samples))[:samples]
    w = training.mean.new_full((1,), resolved.rollout.warmth)

    def batches() -> Iterator[tuple[Velocity, Tensor]]:
        for indices in chosen.split(BATCH):
            context = training.context(indices)
            prior = networks.prior_of(context).blended(w)
            yield velocity_of(networks.generator, prior, context, w), prior.normalise(training.target(indices))

    begin = time.perf_counter()
    random = torch.Generator().manual_seed(resolved.seed)
    ratios = torch.linspace(*ENDS, levels)
    statistics = estimate_statistics(batches, ratios, random, lambda field: field.mean(dim=-1, keepdim=True))
    with complete(directory / STATISTICS) as partial:
        partial.mkdir()
        fields = {"log_snr": statistics.log_snr, "l": statistics.l, "s": statistics.s, "b": statistics.b, "warmth": w[0]}
        save_file({name: field.cpu().contiguous() for name, field in fields.items()}, partial / "statistics.safetensors")
        (partial / "stamp.json").write_text(json.dumps(stamp, indent=2))
    summary.written[str(directory / STATISTICS)] = about
    summary.facts = {
        "l": f"{statistics.l.mean():.3f} on average, {statistics.l.amin():.3f} to {statistics.l.amax():.3f}; 1 in DPM-Solver++",
        "s": f"{statistics.s.mean():.3f} on average, {statistics.s.amin():.3f} to {statistics.s.amax():.3f}; 0 in DPM-Solver++",
        "time": f"{time.perf_counter() - begin:.0f} s",
    }
    return summary
