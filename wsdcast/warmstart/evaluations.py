"""Solvers and time grids by name, and their number of function evaluations (NFE)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import get_args

import torch
from torch import Tensor

from wsdcast.runs.errors import UserError
from wsdcast.runs.names import EMPIRICAL, TORCHDIFFEQ, GridName, SolverName
from wsdcast.warmstart import dpm, solvers, times
from wsdcast.warmstart.dpm import SolverStatistics, dpm_solver_v3
from wsdcast.warmstart.solvers import Velocity, Watch, Watched, adams_bashforth, unwatched

NAMES = tuple(name for name in get_args(SolverName) if name != "auto")
SOLVERS: dict[str, Watched] = {
    name: getattr(solvers, name, None) or getattr(dpm, name) for name in NAMES if name not in (EMPIRICAL, *TORCHDIFFEQ)
}
GRIDS: dict[str, Callable[[int], Tensor]] = {name: getattr(times, name.replace("-", "_")) for name in get_args(GridName)}


def solver(name: str, momentum: float = 1.0, statistics: SolverStatistics | None = None) -> Watched:
    """The solver of a name.

    Args:
        name: one of :data:`NAMES`.
        momentum: of Adams-Bashforth methods; others have none.
        statistics: coefficients of the model, for DPM-Solver-v3.

    Raises:
        UserError: if the name is unknown, statistics are missing, or the solver has no momentum.
    """
    if momentum != 1 and not name.startswith("ab"):
        raise UserError(f"solver {name} has no momentum; ab2, ab3 and ab4 have")
    if name == EMPIRICAL:
        if statistics is None:
            raise UserError(f"solver {name} needs statistics of the generator; run `wsdcast study statistics` first")
        return partial(dpm_solver_v3, statistics, 3)
    if name in TORCHDIFFEQ:
        return partial(_torchdiffeq, name)
    if name not in SOLVERS:
        raise UserError(f"solver '{name}': expected one of {', '.join(NAMES)}")
    return SOLVERS[name] if momentum == 1 else partial(adams_bashforth, int(name[2:]), momentum=momentum)


def _torchdiffeq(method: str, velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched) -> Tensor:
    from torchdiffeq import odeint

    # The wide tolerance makes an implicit method stop after its first correction. Higher orders are unstable.
    options = {"max_order": 4}
    states = odeint(lambda t, x: velocity(x, t), noise, times.to(noise), method=method, rtol=1e9, options=options)
    for state in states:
        watch(state)
    return states[-1]


def grid(name: str, steps: int, log_snr_ends: tuple[float, float] | None = None) -> Tensor:
    """The times of a named grid, (steps + 1,). Only the log-SNR grid uses ``log_snr_ends``."""
    return times.log_snr(steps, log_snr_ends) if name == "log-snr" and log_snr_ends else GRIDS[name](steps)


@cache
def evaluations(name: str, steps: int) -> int:
    """The number of evaluations that a solver makes in ``steps`` steps, counted on a problem with one unknown."""
    if name == EMPIRICAL:
        return steps
    counted = Counted(lambda x, t: 0 * x)
    solver(name)(counted, torch.zeros(1, 1), times.uniform(steps))
    return counted.calls


def steps_for(name: str, nfe: int) -> int:
    """The number of steps in which a solver makes exactly ``nfe`` evaluations.

    Raises:
        UserError: if there is none; it names the nearest possible number of evaluations.
    """
    counts = {evaluations(name, steps): steps for steps in range(1, max(nfe, 1) + 2)}
    if nfe not in counts:
        nearest = min(counts, key=lambda count: (abs(count - nfe), count))
        raise UserError(f"nfe {nfe}: the solver {name} cannot evaluate exactly so often; the nearest it can do is {nearest}")
    return counts[nfe]


@dataclass
class Counted:
    """A velocity that counts its evaluations."""

    velocity: Velocity
    calls: int = field(default=0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the velocity, and count the evaluation."""
        self.calls += 1
        return self.velocity(x, t)


def require_possible(solver: str, grid_in_time: str, nfe: int) -> None:
    """Check that a solver can make exactly ``nfe`` evaluations on a grid.

    Raises:
        UserError: if it cannot, or if it needs equal steps and the grid has others.
    """
    steps_for(solver, nfe)
    if solver in TORCHDIFFEQ and grid_in_time != "uniform":
        raise UserError(f"solver {solver}: takes its steps for equal; use it with uniform times, not {grid_in_time}")
