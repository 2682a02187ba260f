"""Count how often a bootstrap interval holds the true mean, by the number of blocks and the correlation of the scores.

    python examples/coverage_of_intervals.py [TRIALS]

Prints the table of docs/scores.md.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import xarray as xr

from wsdcast.verification.bootstrap import block_length, block_weights, interval, p_value, resampled

HOUR = np.timedelta64(1, "h")
SPACING, LEAD, BLOCK = 12, 72, 120
"""Hours between initial times, longest lead time, and the length of a block. Other hours with as many blocks give the same to 3 %."""
BLOCKS = (2, 3, 4, 6, 10, 20, 40)
MEMORIES = (0, BLOCK / 4, BLOCK / 2, BLOCK)
"""Hours in which the correlation of the scores falls by a factor of e."""


def coverage(count: int, spacing: int, lead: int, memory: float, trials: int) -> tuple[float, float, float, float]:
    """Return the number of blocks, the shares of trials with the true mean in the interval and with p below 0.05, and a factor.

    With intervals that many times as wide, 95 % of the trials would have the true mean in the interval. A trial has normal scores of mean 0
    (count,), whose correlation falls by a factor of e in ``memory`` hours; 0: they are independent.

    Args:
        count: number of initial times.
        spacing: hours between them.
        lead: the longest lead time in hours.
        memory: see above.
        trials: how many.
    """
    times = np.datetime64("2020-01-01", "ns") + spacing * HOUR * np.arange(count)
    random, blocks = np.random.default_rng(0), count / block_length(times, lead * HOUR)
    kept = np.exp(-spacing / memory) if memory else 0.0
    scores = random.standard_normal((count, trials))
    for before, now in pairwise(scores):
        now *= np.sqrt(1 - kept**2)
        now += kept * before
    of_time = xr.Dataset({"score": (("time", "trial"), scores)}, {"time": times})
    draws, mean = resampled(of_time, block_weights(times, lead * HOUR))["score"], of_time["score"].mean("time")
    low, high = interval(draws).transpose("bound", "trial").values
    too_far = abs(mean) / np.where(mean > 0, mean - low, high - mean)  # 1: the true mean is at the bound
    small = p_value(mean, draws, xr.DataArray(blocks)) < 0.05
    return blocks, float((too_far <= 1).mean()), float(small.mean()), float(too_far.quantile(0.95))


def main(trials: int) -> None:
    """Print the table."""
    print("| blocks | independent | correlated for a quarter of a block | for half a block | for a block |")
    print("|---:|---:|---:|---:|---:|")
    for blocks in BLOCKS:
        count = blocks * BLOCK // SPACING
        cells = [coverage(count, SPACING, LEAD, memory, trials) for memory in MEMORIES]
        print(f"| {blocks} | " + " | ".join(f"{100 * held:.0f} %, {factor:.1f}" for _, held, _, factor in cells) + " |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
