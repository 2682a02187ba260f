"""All four stages, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsdcast.runs.artefact import resolve
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.summary import Summary
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import require_rollout
from wsdcast.weather.stages.prepare import prepare
from wsdcast.weather.stages.rollout import rollout
from wsdcast.weather.stages.score import score
from wsdcast.weather.stages.train import train


def run(recipe: str | Path | Recipe | Overridden = "planet", run: str | Path | None = None, *, overwrite: bool = False) -> list[Summary]:
    """Prepare, train, roll out and score a recipe. Artefacts that are current are not made again.

    Args:
        recipe: path or name of a recipe.
        run: run directory; default ``runs/<recipe name>``.
        overwrite: replace artefacts made from another recipe.

    Returns:
        The summary of each stage.

    Raises:
        UserError: as the stages do, and before anything is made if the networks cannot make the recipe's own rollout. What the stages
            before have finished is kept.
    """
    return list(run_stages(recipe, run, overwrite=overwrite))


def run_stages(recipe: str | Path | Recipe | Overridden, run: str | Path | None, *, overwrite: bool) -> Iterator[Summary]:
    """As :func:`run`, and yield the summary of each stage when it ends."""
    require_rollout(resolve(recipe, run, Recipe)[0])  # before hours of preparing and training
    for stage in (prepare, train, rollout, score):
        yield stage(recipe, run, overwrite=overwrite)
