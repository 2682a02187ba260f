"""Numbers of a tiny forecast, its scores and two tiny studies, as they were before the package was laid out anew.

What only moves or renames code must leave them as they are. They may be renewed, by ``python tests/test_pinned.py``, in a commit that
changes on purpose what is computed, and that says so. They are compared to three digits: training amplifies the rounding of processors.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import TINY, TINY_IMAGES
from typer.testing import CliRunner

from wsdcast.cli import app

STORED = Path(__file__).parent / "pinned/numbers.json"
MOST = 24
"""Numbers of a variable that are kept, evenly spread."""
STUDY = "study: {seeds: [0], priors: [warm, standard], ablations: [mean-only], nfe: [2, 4], rollout_nfe: [2], leads: [6, 12], starts: 3, "
STUDY += "rollout_starts: 2, members: 3}\n"


def command(*arguments: str) -> None:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.stderr


def some(dataset: xr.Dataset) -> dict[str, list[float]]:
    """A few numbers of every variable of floating point, with its sum of squares."""
    kept = {}
    for name, variable in sorted(dataset.data_vars.items()):
        if variable.dtype.kind != "f" or "seconds" in str(name):
            continue
        values = variable.values.ravel().astype(float)
        finite = values[np.isfinite(values)]
        chosen = finite[np.linspace(0, finite.size - 1, min(MOST, finite.size)).round().astype(int)] if finite.size else finite
        kept[str(name)] = [float(finite.size), float(np.sum(finite**2)), *(float(f"{value:.6g}") for value in chosen)]
    return kept


def numbers(place: Path) -> dict[str, dict[str, list[float]]]:
    (place / "tiny.yaml").write_text(TINY + STUDY)
    (place / "images.yaml").write_text(TINY_IMAGES)
    for words in (("run",), ("study", "nfe", "--recipe")):
        command(*words, str(place / "tiny.yaml"), "--run", str(place / "tiny"))
    command("inpaint", "prepare", "--recipe", str(place / "images.yaml"), "--run", str(place / "images"))
    command("inpaint", "study", "--run", str(place / "images"))
    found = {}
    with xr.open_zarr(place / "tiny/forecast.zarr", consolidated=False, decode_timedelta=True) as forecast:
        found["forecast"] = some(forecast.load())
    for name in ("tiny/scores.nc", "tiny/study.nc", "images/study.nc"):
        with xr.open_dataset(place / name, decode_timedelta=True) as dataset:
            found[name] = some(dataset.load())
    return found


@pytest.mark.filterwarnings("ignore")
def test_numbers_are_what_they_were(tmp_path):
    expected, found = json.loads(STORED.read_text()), numbers(tmp_path)
    assert {what: set(parts) for what, parts in found.items()} == {what: set(parts) for what, parts in expected.items()}
    for what, parts in expected.items():
        for name, values in parts.items():
            scale = max(map(abs, values[2:]), default=0.0)
            np.testing.assert_allclose(found[what][name], values, rtol=3e-3, atol=3e-3 * scale, err_msg=f"{what}: {name}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        STORED.write_text(json.dumps(numbers(Path(directory)), indent=0) + "\n")
