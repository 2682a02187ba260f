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
"""Log signal-to-noise ratios between which statistics are taken; beyond, the last ones are used."""


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
    """Estimate what the solver ``dpm3-v3`` needs to know of the trained generator into ``RUN/statistics``.

    The networks tell longitudes apart only by what is beside the wind, so the statistics are averaged along them.

    Args:
        recipe: path or name of a recipe; default: the one of the trained generator.
        run: run directory; default ``runs/<recipe name>``.
        samples: of the training part, evenly spread; five evaluations each at each level.
        levels: log signal-to-noise ratios, evenly spaced.
        warmth: w of Eq. 4 at which samples will be drawn; default: the recipe's.
        moments: the model that a generator with the prior ``given`` was trained with.

    Statistics made otherwise or of another generator are replaced; they take seconds.

    Raises:
        UserError: if the networks are missing or of another recipe.
    """
    resolved, directory = resolve(recipe, run, Recipe, GENERATOR, rollout__warmth=warmth)
    record = open_analysis(require(resolved, directory, ANALYSIS, "prepare"))
    devices.keep_freed_memory()
    networks = trained(resolved, directory, record, moments)
    summary = Summary("study statistics")
    about = f"{samples} samples, {levels} levels, warmth {resolved.rollout.warmth:g}"
    stamp = make_stamp(resolved, directory, STATISTICS, about)
    there = read_stamp(directory / STATISTICS)
    if there is not None and there["id"] == stamp["id"]:
        summary.facts["current"] = str(directory / STATISTICS)
        return summary
    (training,) = samples_of(record, networks.forcings, "train")
    chosen = torch.arange(0, len(training), max(1, len(training) // samples))[:samples]
    w = training.mean.new_full((1,), resolved.rollout.warmth)

    def batches() -> Iterator[tuple[Velocity, Tensor]]:
        for some in chosen.split(BATCH):
            context = training.context(some)
            prior = networks.prior_of(context).blended(w)
            yield velocity_of(networks.generator, prior, context, w, networks.path), prior.normalise(training.target(some))

    begin = time.perf_counter()
    random = torch.Generator().manual_seed(resolved.seed)
    ratios = torch.linspace(*ENDS, levels)
    found = estimate_statistics(batches, ratios, random, lambda field: field.mean(dim=-1, keepdim=True))
    with complete(directory / STATISTICS) as partial:
        partial.mkdir()
        fields = {"log_snr": found.log_snr, "l": found.l, "s": found.s, "b": found.b, "warmth": w[0]}
        save_file({name: field.cpu().contiguous() for name, field in fields.items()}, partial / "statistics.safetensors")
        (partial / "stamp.json").write_text(json.dumps(stamp, indent=2))
    summary.written[str(directory / STATISTICS)] = about
    summary.facts = {
        "l": f"{found.l.mean():.3f} on average, {found.l.amin():.3f} to {found.l.amax():.3f}; 1 in DPM-Solver++",
        "s": f"{found.s.mean():.3f} on average, {found.s.amin():.3f} to {found.s.amax():.3f}; 0 in DPM-Solver++",
        "time": f"{time.perf_counter() - begin:.0f} s",
    }
    return summary
