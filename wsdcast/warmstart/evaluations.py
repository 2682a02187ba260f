"""Solvers and time grids by name, and the number of function evaluations (NFE) of each solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor

from wsdcast.runs.errors import UserError
from wsdcast.runs.names import TORCHDIFFEQ, PathName
from wsdcast.warmstart import dpm, solvers, stochastic, times
from wsdcast.warmstart.solvers import Solver, Velocity, adams_bashforth

ADAMS_BASHFORTH = {"ab2": 2, "ab3": 3, "ab4": 4}
"""The methods that have a momentum, and their orders."""

SOLVERS: dict[str, Solver] = {
    "euler": solvers.euler,
    "midpoint": solvers.midpoint,
    "heun2": solvers.heun2,
    "heun3": solvers.heun3,
    "rk4": solvers.rk4,
    **{name: partial(adams_bashforth, order) for name, order in ADAMS_BASHFORTH.items()},
    "dpm2": dpm.dpm2,
    "dpm3": dpm.dpm3,
}
"""The deterministic solvers of this package, by name."""


def _torchdiffeq(method: str, velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Solve with a method of torchdiffeq.

    Raises:
        ValueError: if the steps are not equal, which the method assumes.
    """
    from torchdiffeq import odeint

    if not torch.allclose(times.diff(), times.diff()[:1], rtol=1e-3):  # times of single precision are rounded
        raise ValueError(f"solver {method}: assumes equal steps, not the times {times.tolist()}")
    # With this large tolerance an implicit method stops after its first correction. Orders above 4 are unstable.
    options = {"max_order": 4}
    return odeint(lambda t, x: velocity(x, t), noise, times.to(noise), method=method, rtol=1e9, options=options)[-1]


ALL_SOLVERS = SOLVERS | {name: partial(_torchdiffeq, name) for name in TORCHDIFFEQ} | stochastic.SOLVERS
"""All solvers, by name."""

GRIDS: dict[str, Callable[[int], Tensor]] = {
    "uniform": times.uniform,
    "quadratic": times.quadratic,
    "log-snr": times.log_snr,
    "edm": times.edm,
    "sgmse": times.sgmse,
}
"""The grids of flow times, by name."""


def solver(name: str, momentum: float = 1.0) -> Solver:
    """Return the solver with this name.

    Args:
        name: one of :data:`ALL_SOLVERS`.
        momentum: the momentum of an Adams-Bashforth method; it must be 1 for other solvers.

    Raises:
        UserError: if no solver has this name, or if a solver without momentum is given one.
    """
    if name not in ALL_SOLVERS:
        raise UserError(f"solver '{name}': expected one of {', '.join(ALL_SOLVERS)}")
    if momentum == 1:
        return ALL_SOLVERS[name]
    _require_momentum(name)
    return partial(adams_bashforth, ADAMS_BASHFORTH[name], momentum=momentum)


def momentum_of(name: str, momentum: float) -> float:
    """Return the momentum with which a solver is used: 1, which is none, if it has no momentum."""
    return momentum if name in ADAMS_BASHFORTH else 1.0


def _require_momentum(name: str) -> None:
    if name not in ADAMS_BASHFORTH:
        raise UserError(f"solver {name} has no momentum; {', '.join(ADAMS_BASHFORTH)} have")


def grid(name: str, steps: int, log_snr_ends: tuple[float, float] | None = None) -> Tensor:
    """Return the times of the grid with this name, (steps + 1,). Only the grid ``log-snr`` uses ``log_snr_ends``.

    Raises:
        UserError: if no grid has this name.
    """
    if name not in GRIDS:
        raise UserError(f"grid_in_time '{name}': expected one of {', '.join(GRIDS)}")
    return times.log_snr(steps, log_snr_ends) if name == "log-snr" and log_snr_ends else GRIDS[name](steps)


def count_noise(name: str, steps: int) -> int:
    """Return the number of noise fields of one sample: one for the start, and for stochastic solvers one for each step but the last."""
    return steps if name in stochastic.SOLVERS else 1


@cache
def evaluations(name: str, steps: int) -> int:
    """Return how often a solver evaluates the velocity in this number of steps, counted on a problem with one number."""
    counted = Counted(lambda x, t: 0 * x)
    solver(name)(counted, torch.zeros(1, count_noise(name, steps)), times.uniform(steps))
    return counted.calls


def steps_for(name: str, nfe: int) -> int:
    """Return the number of steps with which a solver makes exactly ``nfe`` function evaluations.

    Raises:
        UserError: if there is no such number of steps; the message names the nearest possible numbers of evaluations.
    """
    counts = {evaluations(name, steps): steps for steps in range(1, max(nfe, 1) + 2)}
    if nfe not in counts:
        least = min(abs(count - nfe) for count in counts)
        nearest = [str(count) for count in counts if abs(count - nfe) == least]
        near = f"number is {nearest[0]}" if len(nearest) == 1 else f"numbers are {' and '.join(nearest)}"
        raise UserError(f"nfe {nfe}: the solver {name} cannot make this number of evaluations; the nearest possible {near}")
    return counts[nfe]


@dataclass
class Counted:
    """A velocity that counts how often it is evaluated."""

    velocity: Velocity
    calls: int = field(default=0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Count the call and return the velocity."""
        self.calls += 1
        return self.velocity(x, t)


def require_possible(solver: str, grid_in_time: str, nfe: int, path: PathName = "straight", momentum: float = 1.0) -> None:
    """Check that a solver can make ``nfe`` evaluations on a grid, along a path, with a momentum.

    Raises:
        UserError: if the solver cannot make exactly ``nfe`` evaluations, if it assumes equal steps and the steps of the grid
            differ, if it assumes the straight path, if the grid begins with noise and the path has none, or if it has no momentum.
    """
    if momentum != 1:
        _require_momentum(solver)
    steps_for(solver, nfe)
    if solver in TORCHDIFFEQ and grid_in_time != "uniform":
        raise UserError(f"solver {solver}: assumes equal steps; use it with uniform times, not {grid_in_time}")
    if grid_in_time == "sgmse" and path == "blur":
        raise UserError("grid_in_time sgmse: begins with noise, which the path blur does not have")
    if solver in stochastic.SOLVERS and path != "straight":
        raise UserError(f"solver {solver}: works on the straight path only, not on the path {path}")
