"""The commands ``wsdcast inpaint ...``: the stages and the study of the image benchmark."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsdcast.cli.command import app, command, with_overrides
from wsdcast.cli.options import (
    GridInTimeOption,
    OverrideOption,
    OverwriteOption,
    RecipeArgument,
    RunOption,
    SeedsOption,
    listed,
    recipe_option,
)
from wsdcast.runs.names import ImagePriorName, SolverName

inpaint = typer.Typer(help="The method on images, as a second benchmark: the same stages, networks and solvers.", no_args_is_help=True)
app.add_typer(inpaint, name="inpaint")
inpaint_command = partial(command, group=inpaint)

ImagesRecipeOption = Annotated[str | None, recipe_option("the prepared images', else made")]
WeightsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Inception's weights, for FID as in the literature.", show_default="none, so no FID"),
]
ProtocolOption = Annotated[
    Literal["held-out", "paper"] | None,
    typer.Option(
        help="Contexts of test images; or of training images, as the reference implementation scored.",
        show_default="the recipe's: held-out",
    ),
]


@inpaint_command
def prepare(
    recipe: ImagesRecipeOption = None,
    override: OverrideOption = None,
    run: RunOption = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="'made': synthetic images; 'cifar10': downloaded; an npz of uint8 images; a folder, zip or tar of images; "
            "CIFAR-10's binary version.",
            show_default="the recipe's: made",
        ),
    ] = None,
    test: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Images of the test split.", show_default="the source's own, or a tenth of it")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Pixels per side after resizing.", show_default="not resized")] = None,
    crop: Annotated[
        int | None,
        typer.Option(
            help="Pixels per side of the central square that is cut out first; 140 for CelebA's aligned images.",
            show_default="the largest square, if resized",
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be used, and name them.")] = False,
    overwrite: OverwriteOption = False,
) -> object:
    """Resize images, divide them into training, validation and test images, and store them in one memory-mapped file."""
    from wsdcast.images.stages.prepare import prepare

    changes = {"source": source, "test": test, "size": size, "crop": crop, "skip_bad": skip_bad or None}
    return prepare(with_overrides(recipe, override), run, overwrite=overwrite, **changes)


@inpaint_command
def train(
    recipe: ImagesRecipeOption = None,
    override: OverrideOption = None,
    run: RunOption = None,
    prior: Annotated[
        ImagePriorName | None,
        typer.Option(help="Where flow matching starts, and what the generator reads of the moments.", show_default="the recipe's: warm"),
    ] = None,
    overwrite: OverwriteOption = False,
) -> object:
    """Train the moments network, then the generator. A training that was stopped continues from its last checkpoint."""
    from wsdcast.images.stages.train import train

    return train(with_overrides(recipe, override), run, prior=prior, overwrite=overwrite)


@inpaint_command
def sample(
    recipe: Annotated[str | None, recipe_option("the generator's, else made")] = None,
    override: OverrideOption = None,
    run: RunOption = None,
    contexts: Annotated[int | None, typer.Option(help="Test images.", show_default="the recipe's: 500")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples for each image.", show_default="the recipe's: 4")] = None,
    nfe: Annotated[int | None, typer.Option(help="Network evaluations per sample.", show_default="the recipe's: 10")] = None,
    solver: Annotated[SolverName | None, typer.Option(help="Solver of the flow.", show_default="the recipe's: midpoint")] = None,
    grid_in_time: GridInTimeOption = None,
    warmth: Annotated[
        str | None,
        typer.Option(
            metavar="W",
            help="Std of the start, w of Eq. 4, from 0 (std 1) to 1 (the predicted std); calibrated: the largest w whose prior is wide "
            "enough for the validation images.",
            show_default="the recipe's: 1",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of masks and noise.", show_default="the recipe's: 0")] = None,
    visible: Annotated[
        float | None, typer.Option(help="Share of visible pixels, between 0 and 1.", show_default="the recipe's: 0.1")
    ] = None,
    protocol: ProtocolOption = None,
    overwrite: OverwriteOption = False,
) -> object:
    """Draw samples for test images, and pictures of them."""
    from wsdcast.images.stages.sample import sample

    changes = {"contexts": contexts, "samples": samples, "nfe": nfe, "solver": solver, "grid_in_time": grid_in_time, "warmth": warmth}
    return sample(with_overrides(recipe, override), run, visible=visible, overwrite=overwrite, seed=seed, protocol=protocol, **changes)


@inpaint_command
def score(
    recipe: Annotated[str | None, recipe_option("the samples', else made")] = None,
    override: OverrideOption = None,
    run: RunOption = None,
    inception_weights: WeightsOption = None,
    overwrite: OverwriteOption = False,
) -> object:
    """Score the samples and baselines: scores.nc, scores.csv, report.html."""
    from wsdcast.images.stages.score import score

    return score(with_overrides(recipe, override), run, inception_weights=inception_weights, overwrite=overwrite)


@inpaint_command
def study(
    recipe: ImagesRecipeOption = None,
    override: OverrideOption = None,
    run: RunOption = None,
    seeds: SeedsOption = None,
    budget: Annotated[
        Literal["cost", "steps"] | None,
        typer.Option(
            help="What is equal for all priors: the cost of training with the moments network, or, as in the paper, the generator's steps.",
            show_default="the recipe's: cost",
        ),
    ] = None,
    priors: Annotated[Any, listed("Priors with every solver and visible share.", "the recipe's: warm,standard")] = None,
    ablations: Annotated[
        Any, listed("Priors with the first solver and one visible share; '' for none.", "the recipe's: unblended, mean-only, features-only")
    ] = None,
    nfe: Annotated[Any, listed("Numbers of evaluations.", "the recipe's: 2,4,6,8,10,12,20,50,100")] = None,
    solvers: Annotated[Any, listed("Solvers.", "the recipe's: midpoint,dpm3")] = None,
    grids_in_time: Annotated[Any, listed("Flow times of each solver, as for sample.", "the recipe's: uniform")] = None,
    visible: Annotated[Any, listed("Shares of visible pixels; '' for none.", "the recipe's: 0.01,0.05,0.2,0.5,0.9")] = None,
    warmths: Annotated[Any, listed("Warmths, w of Eq. 4, at every share and in the curves.", "the recipe's: 0.5,0.9,1,calibrated")] = None,
    contexts: Annotated[int | None, typer.Option(help="Test images.", show_default="the recipe's: 1000")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples for each image.", show_default="the recipe's: 2")] = None,
    protocol: ProtocolOption = None,
    inception_weights: WeightsOption = None,
    overwrite: OverwriteOption = False,
) -> object:
    """How many evaluations are enough: priors, solvers and visible shares at equal cost of training: study.nc, study.html."""
    from wsdcast.study.images import inpaint_study

    return inpaint_study(
        with_overrides(recipe, override),
        run,
        seeds=seeds,
        budget=budget,
        priors=priors,
        ablations=ablations,
        nfe=nfe,
        solvers=solvers,
        grids_in_time=grids_in_time,
        visible=visible,
        warmths=warmths,
        contexts=contexts,
        samples=samples,
        protocol=protocol,
        inception_weights=inception_weights,
        overwrite=overwrite,
    )


@inpaint_command
def run(
    recipe: RecipeArgument = "made",
    override: OverrideOption = None,
    run: RunOption = None,
    overwrite: OverwriteOption = False,
) -> object:
    """Prepare, train, sample and score a recipe. Artefacts that are current are not made again."""
    from wsdcast.images.pipeline import run_stages

    return run_stages(with_overrides(recipe, override), run, overwrite=overwrite)
