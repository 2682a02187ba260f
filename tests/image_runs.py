"""Helpers of the tests: the tiny recipe of images, copies of run directories, and folders of random images."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import yaml
from conftest import TINY_IMAGES
from PIL import Image

from wsdcast.images.recipe import ImageRecipe, Sampling

RECIPE = ImageRecipe.model_validate(yaml.safe_load(TINY_IMAGES))


def copy_of(inpainted: Path, run: Path, *artefacts: str) -> Path:
    """Copy the prepared images of a run directory, and other artefacts of it, to the directory ``run``, and return that."""
    for name in ("images", *artefacts):
        shutil.copytree(inpainted / "run" / name, run / name)
    return run


def drawn_by(solver: str, nfe: int, grid_in_time: str = "uniform", **others: object) -> Sampling:
    """The settings of sampling of the tiny recipe, with this solver."""
    return RECIPE.sample.model_copy(update={"solver": solver, "nfe": nfe, "grid_in_time": grid_in_time, **others})


def checksums(run: Path) -> dict[str, str]:
    """Return the checksum of every file by its path."""
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in run.rglob("*") if path.is_file()}


def random_images(folder: Path, count: int, size: int = 16, mode: str = "RGB") -> Path:
    """Write random images to a new folder and return it."""
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (count, size, size, len(mode)), dtype=np.uint8)
    for number, pixels in enumerate(values):
        Image.fromarray(pixels.squeeze()).save(folder / f"{number}.png")
    return folder
