"""Break the code in many places, one after another, and see which test falls each time: ``python tests/broken_on_purpose.py``.

Each break is a slip that somebody might make: a sign, a factor, an off-by-one, a swapped axis, a forgotten mask. It is made in a copy of
the checkout, and the tests of that part are run until the first one fails. A break that no test sees is printed as SURVIVED.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Each has a file below wsdcast/, its text, the broken text, and the test files of that part.
BREAKS = [
    (
        "warmstart/paths.py",
        "return (1 - t) * noise + t * data, data - noise",
        "return (1 - t) * noise + t * data, noise - data",
        "method paths",
    ),
    (
        "warmstart/prior.py",
        "return w * torch.maximum(std, 1 - w) + (1 - w)",
        "return w * torch.minimum(std, 1 - w) + (1 - w)",
        "priors method",
    ),
    ("warmstart/prior.py", "* self.std + self.mean", "* self.std - self.mean", "priors method"),
    ("warmstart/paths.py", "(1 - shaped) * noise + shaped * blurred", "(1 - shaped) * noise + blurred", "paths"),
    (
        "warmstart/solvers.py",
        "MIDPOINT = Tableau((0, 1 / 2), ((), (1 / 2,)), (0, 1))",
        "MIDPOINT = Tableau((0, 1 / 2), ((), (1 / 2,)), (1, 0))",
        "solvers",
    ),
    ("warmstart/dpm.py", "integrals = [-math.expm1(-length)]", "integrals = [math.expm1(length)]", "solvers"),
    ("warmstart/moments.py", "(std * calibration).clamp(min=lowest).clamp(max=self.maximum_std)\n", "std * calibration\n", "starts"),
    ("nets/sphere.py", "half = x.shape[-1] // 2\n", "half = x.shape[-1] // 2 + 1\n", "unet"),
    ("nets/unet.py", "hidden = hidden * (1 + scale) + shift", "hidden = hidden * scale + shift", "unet training"),
    ("weather/training/generator.py", "draws, path, weight, of_channels)", "draws, path, weight, None)", "training_runs"),
    ("weather/training/generator.py", "batch.target, batch.draws, path, weight", "batch.target, batch.draws, path, None", "training_runs"),
    (
        "weather/training/generator.py",
        "generator_weights(recipe, job.record), moments_weights(recipe, job.record)",
        "moments_weights(recipe, job.record), generator_weights(recipe, job.record)",
        "training_runs",
    ),
    ("weather/training/moments.py", "(network, *batch, of_channels)", "(network, *batch)", "training_runs"),
    ("weather/training/few_steps.py", "weights = weights * of_channels", "pass", "training_runs"),
    ("weather/weights.py", "scale = scale / of_channels", "pass", "training_runs"),
    ("weather/weights.py", "recipe.crps.alpha", "1.0", "training_runs"),
    ("warmstart/flow.py", "weight(draws.t).sqrt()", "weight(draws.t)", "paths"),
    ("training/predictions.py", "std = predicted[:, 1]", "std = predicted[:, 0]", "validation"),
    ("training/loop.py", "/ (step_size / size)", "", "training"),
    ("training/loop.py", "training.step) / (10 + training.step)", "training.step) / (1 + training.step)", "training"),
    ("sampling/batches.py", "torch.cat(parts)[:members]", "torch.cat(parts)[-members:]", "ensemble"),
    ("weather/forecast/autoregression.py", "states = [state, *states[:-1]]", "states = [state] * len(states)", "ensemble past_states"),
    (
        "verification/kernels.py",
        "ensemble.difference / (ensemble.members * (ensemble.members - 1))",
        "ensemble.difference / ensemble.members**2",
        "scores parity",
    ),
    (
        "verification/kernels.py",
        "squared_error(ensemble) - variance(ensemble) / ensemble.members",
        "squared_error(ensemble) + variance(ensemble) / ensemble.members",
        "scores",
    ),
    ("verification/kernels.py", "circle[column + lag] - circle[column]", "circle[column] - circle[column]", "scores"),
    ("verification/alignment.py", "NEAR if abs(shift) <= FEW_CELLS", "NEAR if shift <= FEW_CELLS", "alignment"),
    ("verification/gaussian.py", "truth.at(initial_times + STEP)", "truth.at(initial_times)", "gaussian"),
    ("verification/bootstrap.py", ">= abs(difference)).sum", ">= difference).sum", "study_summary"),
    ("verification/bootstrap.py", "chosen), 1 / count)", "chosen), 1 / length)", "study_summary"),
    (
        "data/grid.py",
        "area = -np.diff(np.sin(np.deg2rad(self.latitude_bounds)))",
        "area = np.cos(np.deg2rad(self.latitude))",
        "grid_and_regrid",
    ),
    (
        "data/regrid.py",
        "right - 1, right)\n    return csr_array((np.ones",
        "right, right - 1)\n    return csr_array((np.ones",
        "grid_and_regrid",
    ),
    ("data/sources/space.py", "np.clip(latitude, -90, 90)", "np.clip(latitude, -89, 89)", "odd_sources traps"),
    ("images/data/tasks.py", "return masked(images, ~hidden)", "return masked(images, hidden)", "tasks"),
    ("weather/solver_choice.py", "good = crps <= CRPS_TOLERANCE", "good = crps >= CRPS_TOLERANCE", "study_choices"),
]


def failing_test(checkout: Path, tests: str) -> str | None:
    """Return the first test that fails in a checkout."""
    files = [f"tests/test_{name}.py" for name in tests.split()]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if "error during collection" in done.stdout:
        raise SystemExit(done.stdout)
    failure = re.search(r"(?:FAILED|ERROR) (\S+)", done.stdout)
    return failure[1] if failure else None


def main() -> None:
    survived = 0
    with tempfile.TemporaryDirectory() as directory:
        checkout = Path(directory) / "checkout"
        for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
        for file, before, after, tests in BREAKS:
            path = checkout / "wsdcast" / file
            whole = path.read_text()
            if whole.count(before) != 1:
                raise SystemExit(f"{file}: {before!r} must occur once")
            path.write_text(whole.replace(before, after))
            test = failing_test(checkout, tests)
            path.write_text(whole)
            survived += test is None
            print(f"| `{file}` | `{before.strip()}` | `{after.strip()}` | {test or 'SURVIVED'} |", flush=True)
    raise SystemExit(survived)


if __name__ == "__main__":
    main()
