"""Run directories of a study's variants, which share what they have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from wsdcast.runs.artefact import is_of, read_stamp
from wsdcast.runs.recipes import Experiment


def variant_directory(variant: Experiment, directory: Path, name: str, networks: Collection[str]) -> Path:
    """The run directory PRIOR-SEED of a variant below the study's.

    The prepared data, and those of ``networks`` that the run itself or a variant of the same seed has, are linked to.
    """
    place, prepared = directory / "study" / name, variant.CHAIN[0]
    place.mkdir(parents=True, exist_ok=True)
    for artefact in (prepared, *networks):
        if (place / artefact).is_symlink() and not (place / artefact).exists():
            (place / artefact).unlink()  # its target is gone, and what is trained anew takes its place
    _link(directory, place, prepared)
    twins = [directory, *sorted(place.parent.glob(f"*-{variant.seed}"))]
    for artefact, twin in product(networks, twins):
        # A twin may have a link to nothing, which goes when the twin's own turn comes.
        stamp = read_stamp(twin / artefact) if (twin / artefact).exists() and not (place / artefact).exists() else None
        if stamp and is_of(stamp, variant, place, artefact):
            _link(twin, place, artefact)
    return place


def stored(path: Path) -> xr.Dataset | None:
    """The statistics of a file. None if there is no such file or it is damaged; then they are computed again."""
    try:
        with xr.open_dataset(path, decode_timedelta=True) as statistics:
            return statistics.load()
    except (OSError, ValueError, RuntimeError):
        return None


def training_seconds(place: Path, networks: Iterable[str]) -> float:
    """How long the networks of a run directory, artefacts with these names, took to train."""
    stamps = [json.loads((place / name / "stamp.json").read_text()) for name in networks if (place / name).exists()]
    return float(sum(stamp.get("seconds", np.nan) for stamp in stamps))


def _link(origin: Path, place: Path, artefact: str) -> None:
    if not (place / artefact).exists():
        (place / artefact).symlink_to(os.path.relpath(origin / artefact, place), target_is_directory=True)
