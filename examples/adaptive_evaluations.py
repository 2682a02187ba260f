"""Test whether it pays to spend more evaluations where the moments network is uncertain (the last item of the paper's future work).

    python examples/adaptive_evaluations.py runs/planet/study/warm-0 [runs/planet/study/warm-1 ...]

The number of evaluations is chosen for each initial time and lead time, from the area mean of the predicted standard deviation, averaged
over members. In the lowest third of its values the number is two below the constant one it is compared with, in the highest third two
above. (A number proportional to the mean would hardly ever change: on the planet the mean lies between 0.121 and 0.130.) Initial times and
noise are the same for both. Prints a Markdown table: fair CRPS and deviation of the spectrum, constant and adaptive, with the mean number
of evaluations.
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
from wsdcast.runs.artefact import read_stamp
from wsdcast.runs.names import GENERATOR
from wsdcast.runs.recipes import checked
from wsdcast.sampling.samplers import Sampler, generator_sampler
from wsdcast.study.evaluation import evaluate
from wsdcast.verification.metrics import metrics
from wsdcast.warmstart.evaluations import steps_for
from wsdcast.warmstart.times import uniform
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.trained import Trained, trained

STARTS, MEMBERS, LEADS = 12, 8, (6, 24, 72, 120)
MEAN_EVALUATIONS = (4, 6)


def uncertainty(networks: Trained, context: Tensor, weights: Tensor) -> Tensor:
    """Return the area mean of the predicted std of each sample, (batch,)."""
    return (networks.moments(context)[1] * weights).mean(dim=(1, 2, 3))


def adaptive(networks: Trained, members: int, weights: Tensor, choose: Callable[[Tensor], Tensor], counts: list[int]) -> Sampler:
    """Return a sampler that uses the midpoint rule with ``choose(uncertainty)`` evaluations for each initial time."""
    samplers = {
        nfe: generator_sampler(networks.generator, networks.prior_of, nfe, 1.0, uniform(steps_for("midpoint", nfe)))
        for nfe in range(2, 21, 2)
    }

    def sampler(context: Tensor, noise: Tensor) -> Tensor:
        spread = uncertainty(networks, context, weights).reshape(-1, members).mean(dim=1)
        chosen = choose(spread).repeat_interleave(members)
        counts.extend(chosen.tolist())
        state = torch.empty_like(noise)
        for nfe in chosen.unique().tolist():
            rows = torch.nonzero(chosen == nfe)[:, 0]
            for part in rows.split(25):
                state[part] = samplers[nfe](context[part], noise[part])
        return state

    return sampler


def compare(directory: Path) -> dict[tuple[int, str], list[float]]:
    """Return scores and mean number of evaluations of one trained run, by constant number and way of choosing."""
    stamp = read_stamp(directory / GENERATOR)
    assert stamp is not None, f"{directory} has no generator"
    recipe = checked(stamp["recipe"], str(directory), Recipe)
    record = open_analysis(directory / "analysis.zarr", past_states=recipe.forcings.past_states)
    networks = trained(recipe, directory, record)
    weights = torch.from_numpy(record.grid.area_weights / record.grid.area_weights.mean()).float()[:, None]
    initial_times = record.starts(STARTS, max(LEADS) // 6)

    def run(choose: Callable[[Tensor], Tensor]) -> list[float]:
        counts: list[int] = []
        sampler = adaptive(networks, MEMBERS, weights, choose, counts)
        # One batch has all members of all initial times, so that no initial time is divided between batches.
        sums = evaluate(record, networks, sampler, initial_times, LEADS, members=MEMBERS, seed=0, batch=initial_times.size * MEMBERS)
        scores = metrics(sums.mean(["time", "variable"]))
        return [*scores["crps_fair"].values, float(scores["power_deviation_mean"].mean()), float(np.mean(counts))]

    rows = {}
    uncertainties: list[Tensor] = []

    def constant(spread: Tensor, mean: int) -> Tensor:
        uncertainties.append(spread)
        return torch.full_like(spread, mean).int()

    for mean in MEAN_EVALUATIONS:
        rows[mean, "constant"] = run(partial(constant, mean=mean))
        low, high = torch.cat(uncertainties).quantile(torch.tensor([1 / 3, 2 / 3]))
        rows[mean, "thirds"] = run(lambda spread, n=mean, low=low, high=high: n + 2 * ((spread > high).int() - (spread < low).int()))
    values = torch.cat(uncertainties)
    print(
        f"{directory}: area mean of the predicted std {values.mean():.3f}, from {values.min():.3f} to {values.max():.3f}", file=sys.stderr
    )
    return rows


def main(directories: list[Path]) -> None:
    """Compare, and print the mean over runs, and for adaptive numbers also the lowest and highest gain over the constant number."""
    devices.keep_freed_memory()
    with torch.inference_mode():
        runs = [compare(directory) for directory in directories]
    print(f"| evaluations | chosen by | {' | '.join(f'CRPS {lead} h' for lead in LEADS)} | spectrum | mean evaluations |")
    print("|---" * (4 + len(LEADS)) + "|")
    for mean, way in runs[0]:
        values = np.array([rows[mean, way] for rows in runs])
        gains = 100 * (1 - values / [rows[mean, "constant"] for rows in runs])
        cells = [f"{average:.4f}" for average in values.mean(axis=0)]
        if way != "constant":
            cells = [
                f"{cell} ({low:+.2f} to {high:+.2f} %)" for cell, low, high in zip(cells, gains.min(axis=0), gains.max(axis=0), strict=True)
            ]
        print(f"| {mean} | {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(argument) for argument in sys.argv[1:]])
