"""The score stage: scores samples and two baselines, and writes ``scores.nc``, ``scores.csv`` and ``report.html``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.images.classifier import extractors
from wsdcast.images.contexts import FixedContexts, fixed_contexts
from wsdcast.images.data.store import Images, open_images
from wsdcast.images.drawing import draw_samples, moments_sampler_of
from wsdcast.images.evaluation import Diverged, bounds, described, floors, floors_of, references, scored, statistics_by_context
from wsdcast.images.memory import require_scoring
from wsdcast.images.networks import trained
from wsdcast.images.recipe import ImageRecipe
from wsdcast.images.score_page import write_score_page
from wsdcast.runs import devices
from wsdcast.runs.artefact import is_current, make_stamp, require, resolve
from wsdcast.runs.complete import complete, complete_netcdf
from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.locks import alone
from wsdcast.runs.names import IMAGES, MOMENTS_ALONE, REPORT, SAMPLES, SCORES, SCORES_TABLE
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.progress import track
from wsdcast.runs.summary import Summary
from wsdcast.runs.yaml_text import as_yaml

Row = dict[str, Any]
OURS, OTHERS = "generator", "other images"


@devices.own_torch_settings()
def score(
    recipe: str | Path | ImageRecipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    inception_weights: str | Path | None = None,
    overwrite: bool = False,
) -> Summary:
    """Score the samples of a run, and two baselines: samples of the moments network alone, and training images chosen at random.

    Args:
        recipe: path or name of a recipe; default: the one of the samples.
        run: run directory; default ``runs/<recipe name>``.
        inception_weights: file of Inception's weights, for FID as in the literature.
        overwrite: replace scores of another recipe.

    Raises:
        UserError: if there are no samples, the weights cannot be used, or memory cannot hold the scoring.
    """
    resolved, directory = resolve(recipe, run, ImageRecipe, SAMPLES)
    images = open_images(require(resolved, directory, IMAGES))
    samples = _samples(require(resolved, directory, SAMPLES) / "samples.npy")
    devices.keep_freed_memory()
    summary, settings = Summary("inpaint score"), resolved.sample
    weights = None if inception_weights is None else Path(inception_weights)
    distances = ["classifier_distance"] + ["fid"] * (weights is not None)
    if is_current(resolved, directory, SCORES, overwrite):
        with xr.open_dataset(directory / SCORES) as stored:
            if set(distances) <= set(stored.attrs["distances"].split(", ")):
                summary.facts |= {"current": str(directory / SCORES)} | json.loads(stored.attrs["facts"])
                summary.scores = json.loads(stored.attrs["table"])
                return summary
    require_scoring(images, samples.shape[0], samples.shape[1], distances)  # before the classifier is trained
    extract = extractors(resolved, directory, images, weights, summary, overwrite)
    contexts = fixed_contexts(images, settings.part, resolved.task, count=settings.contexts, seed=settings.seed)
    reference = references(images, extract)
    stamp = json.loads((directory / SAMPLES / "stamp.json").read_text())
    # The stamp of an earlier version lacks the warmth that was used and the number of samples that diverged.
    ensembles = {OURS: (samples, stamp.get("diverged", 0))} | _baselines(resolved, directory, images, contexts)
    by_context = {name: statistics_by_context(drawn, contexts, extract, diverged) for name, (drawn, diverged) in ensembles.items()}
    tracked = track(by_context.items(), "scores and intervals", len(by_context))
    rows = [_row(name, scored([statistics], reference)) for name, statistics in tracked]
    count = samples.shape[0] * samples.shape[1]
    floor, true_images = floors(images, settings.part, count, extract, reference), floors_of(images, settings.part, count)
    used = stamp.get("warmth")
    warmth = settings.warmth if used is None else f"{used:.3g}" + ", calibrated" * (settings.warmth == "calibrated")
    facts = {
        "scored": described(images, settings.part, len(contexts), settings.samples),
        "evaluations": f"{settings.nfe} a sample, {settings.solver}, {settings.grid_in_time} times, warmth {warmth}",
    } | {f"{name.replace('_', ' ')} of {true_images}": f"{value:.3f}" for name, value in floor.items()}
    words = f"of {count} samples are not finite, so that there are no scores"
    facts |= {f"diverged, {name}": f"{diverged} {words}" for name, (_, diverged) in ensembles.items() if diverged}
    plain = [statistics.drop_vars([f"{name}_features" for name in extract]) for statistics in by_context.values()]
    dataset = xr.concat(plain, dim=xr.IndexVariable("scored", list(by_context))).drop_attrs()
    dataset["diverged"] = "scored", [diverged for _, diverged in ensembles.values()], {"long_name": "samples that are not finite"}
    dataset.attrs |= {"about": facts["scored"], "distances": ", ".join(extract)} | {f"floor_{name}": value for name, value in floor.items()}
    dataset.attrs |= {"facts": json.dumps(facts), "table": json.dumps(rows)}
    dataset.attrs["wsdcast"] = json.dumps(make_stamp(resolved, directory, SCORES))
    _write(resolved, directory, dataset, rows, facts)
    summary.facts |= facts
    summary.written[str(directory / SCORES)] = "statistics by context"
    summary.written[str(directory / SCORES_TABLE)] = "the table below, with intervals"
    summary.written[str(directory / REPORT)] = "pictures and the table"
    summary.scores = rows
    return summary


def _samples(path: Path) -> NDArray[np.uint8]:
    """Return the samples of a run, (context, sample, row, column, channel), mapped into memory."""
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as samples ({first_line(error)})") from None


def _baselines(recipe: ImageRecipe, directory: Path, images: Images, contexts: FixedContexts) -> dict[str, tuple[NDArray[np.uint8], int]]:
    """Return for each baseline its samples for the same contexts, (context, sample, row, column, channel), and how many diverged."""
    baselines, samples, diverged = {}, recipe.sample.samples, Diverged()
    if recipe.generator.needs_moments_network:
        sampler = moments_sampler_of(trained(recipe, directory, images))
        drawn = np.stack(list(draw_samples(contexts, sampler, samples, MOMENTS_ALONE, diverged)))
        baselines[MOMENTS_ALONE] = drawn, diverged.count
    return baselines | {OTHERS: (_random_images(images, contexts, samples), 0)}


def _row(name: str, scores: dict[str, dict[str, Any]]) -> Row:
    """Return a row of the table: the name of what is scored, its scores and their intervals, as plain values."""
    intervals = {f"{score}_interval": [float(bound) for bound in bounds(values)] for score, values in scores.items()}
    return {"scored": name} | {score: float(values["value"]) for score, values in scores.items()} | intervals


def _write(recipe: ImageRecipe, directory: Path, dataset: xr.Dataset, rows: list[Row], facts: dict[str, str]) -> None:
    """Write the table, the page and the statistics."""
    with alone(directory):
        with complete(directory / SCORES_TABLE) as partial, partial.open("w", newline="") as file:
            table = [_cells(row) for row in rows]
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        with complete(directory / REPORT) as partial:
            text, power = as_yaml(recipe.dump()), dataset[["power", "power_truth"]].mean("context")
            write_score_page(partial, recipe.name, rows, power, facts, directory / SAMPLES, text)
        # Written last: if it exists, the other files exist too.
        with complete_netcdf(directory / SCORES) as partial:
            dataset.to_netcdf(partial)


def _cells(row: Row) -> Row:
    """Return the row with two columns for each interval, one for each end."""
    cells: Row = {}
    for name, value in row.items():
        score = name.removesuffix("_interval")
        cells |= {name: value} if score == name else {f"{score}_low": value[0], f"{score}_high": value[1]}
    return cells


def _random_images(images: Images, contexts: FixedContexts, samples: int) -> NDArray[np.uint8]:
    """Return training images chosen at random, without regard to the contexts: a climatology, for the score of knowing nothing."""
    part = images.parts["train"]
    chosen = np.random.default_rng(contexts.seed).integers(part.start, part.stop, (len(contexts), samples))
    return images.images[chosen.ravel()].reshape(*chosen.shape, *images.images.shape[1:])
