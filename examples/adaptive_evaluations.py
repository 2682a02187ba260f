"""Does it pay to spend evaluations where the moments network is unsure? (The paper's last item of future work.)

    python examples/adaptive_evaluations.py runs/planet/study/warm-0 [runs/planet/study/warm-1 ...]

Members of one start share the predicted standard deviation, so the number of evaluations is chosen for each start and lead from its area
mean: two less than the constant number it is compared with in the lowest third of what occurs, two more in the highest. (In proportion to
the mean the number would hardly ever change: on the planet the mean lies between 0.121 and 0.130.) Same starts, same noise. Prints a
Markdown table: fair CRPS and deviation of the spectrum, constant and adaptive, with the mean number of evaluations that was counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsdcast.data.store.analysis import open_analysis
from wsdcast.runs import devices
from wsdcast.runs.artefact import read_stamp, stored_recipe
from wsdcast.runs.names import GENERATOR
from wsdcast.sampling.samplers import Sampler, generator_sampler
from wsdcast.study.evaluation import evaluate
from wsdcast.verification.statistics import metrics
from wsdcast.warmstart.evaluations import steps_for
from wsdcast.warmstart.times import uniform
from wsdcast.weather.priors import Trained, trained
from wsdcast.weather.recipe import Recipe

STARTS, MEMBERS, LEADS = 12, 8, (6, 24, 72, 120)
MEAN_EVALUATIONS = (4, 6)


def uncertainty(networks: Trained, context: Tensor, weights: Tensor) -> Tensor:
    """Area mean of the predicted std of each sample, (batch,)."""
    return (networks.moments(context)[1] * weights).mean(dim=(1, 2, 3))


def adaptive(networks: Trained, members: int, weights: Tensor, choose: Callable[[Tensor], Tensor], counts: list[int]) -> Sampler:
    """A sampler whose midpoint rule takes as many evaluations for a start as ``choose`` makes of the uncertainty of its members."""
    samplers = {
        nfe: generator_sampler(networks.generator, networks.prior_of, nfe, 1.0, uniform(steps_for("midpoint", nfe)))
        for nfe in range(2, 21, 2)
    }

    def sampler(context: Tensor, noise: Tensor) -> Tensor:
        unsure = uncertainty(networks, context, weights).reshape(-1, members).mean(dim=1)
        chosen = choose(unsure).repeat_interleave(members)
        counts.extend(chosen.tolist())
        state = torch.empty_like(noise)
        for nfe in chosen.unique().tolist():
            rows = torch.nonzero(chosen == nfe)[:, 0]
            for some in rows.split(25):
                state[some] = samplers[nfe](context[some], noise[some])
        return state

    return sampler


def compare(place: Path) -> dict[tuple[int, str], list[float]]:
    """Scores and counted evaluations of one trained run, by mean number of evaluations and way of choosing it."""
    stamp = read_stamp(place / GENERATOR)
    assert stamp is not None, f"{place} has no generator"
    record = open_analysis(place / "analysis.zarr")
    networks = trained(stored_recipe(stamp, place, Recipe), place, record)
    weights = torch.from_numpy(record.grid.area_weights / record.grid.area_weights.mean()).float()[:, None]
    starts = record.starts(STARTS, max(LEADS) // 6)

    def run(choose: Callable[[Tensor], Tensor]) -> list[float]:
        counts: list[int] = []
        sampler = adaptive(networks, MEMBERS, weights, choose, counts)
        # All members of all starts in one batch: a start is not to be divided.
        sums = evaluate(record, networks, sampler, starts, LEADS, MEMBERS, 0, batch=starts.size * MEMBERS)
        scores = metrics(sums.mean(["time", "variable"]))
        return [*scores["crps_fair"].values, float(scores["power_deviation_mean"].mean()), float(np.mean(counts))]

    rows = {}
    seen: list[Tensor] = []

    def constant(unsure: Tensor, mean: int) -> Tensor:
        seen.append(unsure)
        return torch.full_like(unsure, mean).int()

    for mean in MEAN_EVALUATIONS:
        rows[mean, "constant"] = run(partial(constant, mean=mean))
        low, high = torch.cat(seen).quantile(torch.tensor([1 / 3, 2 / 3]))
        rows[mean, "thirds"] = run(lambda unsure, n=mean, low=low, high=high: n + 2 * ((unsure > high).int() - (unsure < low).int()))
    values = torch.cat(seen)
    print(f"{place}: area mean of the predicted std {values.mean():.3f}, from {values.min():.3f} to {values.max():.3f}", file=sys.stderr)
    return rows


def main(places: list[Path]) -> None:
    """Compare, and print the mean over runs; for adaptive numbers the gain over the constant one of each run, lowest and highest, too."""
    devices.keep_freed_memory()
    with torch.inference_mode():
        runs = [compare(place) for place in places]
    print(f"| evaluations | chosen by | {' | '.join(f'CRPS {lead} h' for lead in LEADS)} | spectrum | mean evaluations |")
    print("|---" * (4 + len(LEADS)) + "|")
    for mean, how in runs[0]:
        values = np.array([rows[mean, how] for rows in runs])
        gains = 100 * (1 - values / [rows[mean, "constant"] for rows in runs])
        cells = [f"{average:.4f}" for average in values.mean(axis=0)]
        if how != "constant":
            cells = [
                f"{cell} ({low:+.2f} to {high:+.2f} %)" for cell, low, high in zip(cells, gains.min(axis=0), gains.max(axis=0), strict=True)
            ]
        print(f"| {mean} | {how} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(argument) for argument in sys.argv[1:]])
