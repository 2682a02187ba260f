"""Count how often a bootstrap interval holds the true mean, by the number of blocks.

    python examples/coverage_of_intervals.py [TRIALS]

Prints the table of docs/scores.md.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np

from wsdcast.verification.bootstrap import BOUNDS, block_length, block_weights

HOUR = np.timedelta64(1, "h")
DESIGNS = ((12, 24, 240), (12, 72, 120), (12, 72, 72), (24, 48, 72), (12, 168, 72), (48, 48, 72), (100, 24, 72))
"""Number of initial times, hours between them, and the longest lead time in hours."""
CORRELATION = 48
"""Hours in which the correlation of the correlated scores falls by a factor of e."""


def coverage(count: int, spacing: int, lead: int, memory: float, trials: int) -> tuple[float, float, float]:
    """Return the number of blocks, and the shares of trials with the true mean in the interval and with p below 0.05.

    A trial has normal scores of mean 0 (count,), whose correlation falls by a factor of e in ``memory`` hours; 0: they are independent.
    """
    times = np.datetime64("2020-01-01", "ns") + spacing * HOUR * np.arange(count)
    weights, random = block_weights(times, lead * HOUR).values, np.random.default_rng(0)
    kept = np.exp(-spacing / memory) if memory else 0.0
    scores = random.standard_normal((count, trials))
    for before, now in pairwise(scores):
        now *= np.sqrt(1 - kept**2)
        now += kept * before
    draws, mean = weights @ scores, scores.mean(axis=0)
    low, high = np.quantile(draws, BOUNDS, axis=0)
    p = ((abs(draws - mean) >= abs(mean)).sum(axis=0) + 1) / (len(draws) + 1)
    return count / block_length(times, lead * HOUR), float(((low <= 0) & (high >= 0)).mean()), float((p < 0.05).mean())


def main(trials: int) -> None:
    """Print the table."""
    print("| blocks | holds the mean, independent scores | correlated over two days | p < 0.05, independent | correlated |")
    print("|---:|---:|---:|---:|---:|")
    for design in DESIGNS:
        (blocks, covered, small), (_, covered_too, small_too) = (coverage(*design, memory, trials) for memory in (0, CORRELATION))
        print(f"| {blocks:.0f} | {covered:.0%} | {covered_too:.0%} | {small:.0%} | {small_too:.0%} |".replace("%", " %"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
