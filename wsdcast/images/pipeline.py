"""Run the four stages of the image benchmark one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsdcast.images.drawing import require_own_samples
from wsdcast.images.recipe import ImageRecipe
from wsdcast.images.stages.prepare import prepare
from wsdcast.images.stages.sample import sample
from wsdcast.images.stages.score import score
from wsdcast.images.stages.train import train
from wsdcast.runs.artefact import resolve
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.summary import Summary


def run_stages(
    recipe: str | Path | ImageRecipe | Overridden = "made", run: str | Path | None = None, *, overwrite: bool = False
) -> Iterator[Summary]:
    """Prepare, train, sample and score a recipe. Artefacts that are current are not made again.

    The summary of each stage is yielded when it ends. The next stage begins when its summary is asked for.

    Args:
        recipe: path or name of a recipe.
        run: run directory; default ``runs/<recipe name>``.
        overwrite: replace artefacts made from another recipe.

    Raises:
        UserError: as the stages do, and before anything is made if the generator cannot make the recipe's own samples.
    """
    require_own_samples(resolve(recipe, run, ImageRecipe)[0])  # before hours of preparing and training
    for stage in (prepare, train, sample, score):
        yield stage(recipe, run, overwrite=overwrite)
