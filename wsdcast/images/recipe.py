"""The recipe of an image experiment: every section and key, with its default."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from wsdcast.runs.moments_section import MomentsNetwork
from wsdcast.runs.names import (
    CALIBRATED,
    CLASSIFIER,
    GENERATOR,
    IMAGES,
    MOMENTS,
    SAMPLES,
    SCORES,
    STUDY,
    WITHOUT_NETWORK,
    GridName,
    ImagePriorName,
    SolverName,
)
from wsdcast.runs.recipes import Evaluations, Experiment, GeneratorNetwork, LogSnrEnds, Optimisation, Section, TrainingLog
from wsdcast.runs.study_variants import Variants, comparable
from wsdcast.warmstart.evaluations import count_noise

Share = Annotated[float, Field(gt=0, lt=1)]
Warmth = Annotated[float, Field(ge=0, le=1)]
Protocol = Literal["held-out", "paper"]


def _plain(solver: SolverName) -> SolverName:
    if solver == "auto":
        raise ValueError("auto works for wind only; choose another solver")
    return solver


FlowSolver = Annotated[SolverName, AfterValidator(_plain)]


class ImageData(Section):
    """Which images are used, and how they are prepared and split."""

    source: str = Field("made", description="'made' generates images, 'cifar10' downloads it; or a path: npz, folder or archive")
    test: str | None = Field(None, description="a source of test images; default: the source's own test split, or a share of the source")
    size: int | None = Field(None, ge=2, description="pixels per side after resizing; default: no resizing")
    crop: int | None = Field(
        None, ge=2, description="pixels per side of the centre crop before resizing; default: none, or the largest square if size is given"
    )
    count: int = Field(6000, ge=100, description="how many images 'made' generates; no effect on other sources")
    validation_share: Share = Field(0.1, description="share of the training images that is held out for validation")
    test_share: Share = Field(0.1, description="share of the images that is held out for testing, if the source has no test split")
    skip_bad: bool = Field(False, description="whether unusable images are left out and named instead of refused")


class Task(Section):
    """Which part of an image the context hides or degrades."""

    kind: Literal["inpaint", "block", "super-resolution", "colourise", "denoise", "class"] = Field("inpaint")
    visible: tuple[Share, Share] = Field((0.05, 0.2), description="for inpaint and block: range of the share of visible pixels in training")
    visible_test: Share = Field(0.1, description="for inpaint and block: share of visible pixels in the contexts that are scored")
    factor: int = Field(4, ge=2, description="for super-resolution: pixels per side that are averaged into one")
    noise: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.2, 0.8), description="for denoise: range of the noise's standard deviation in training; white is 1"
    )
    noise_test: PositiveFloat = Field(0.5, description="for denoise: standard deviation in the contexts that are scored")
    flip: bool = Field(True, description="whether a random half of the images is mirrored in training")

    @property
    def shows_pixels(self) -> bool:
        """Whether the task leaves a share of the pixels unchanged; the other tasks degrade all pixels."""
        return self.kind in ("inpaint", "block")

    @property
    def tested(self) -> str:
        """A short description of the contexts that are scored: the task and its test setting."""
        share = f", {100 * self.visible_test:g} % visible"
        settings = {
            "inpaint": share,
            "block": share,
            "super-resolution": f", factor {self.factor}",
            "colourise": "",
            "denoise": f", noise {self.noise_test:g}",
            "class": "",
        }
        return self.kind + settings[self.kind]

    @field_validator("visible", "noise")
    @classmethod
    def _in_order(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] > ends[1]:
            raise ValueError("the first value must not be larger than the second")
        return ends


class ImageMomentsNetwork(MomentsNetwork):
    """The moments network, which predicts the prior."""

    known_pixels: bool = Field(
        True, description="whether the mean of a visible pixel is its value and its std the minimum; false: the network predicts both"
    )


class ImageGenerator(GeneratorNetwork):
    """The flow-matching network."""

    prior: ImagePriorName = Field("warm", description="the prior that flow matching starts from, and whose features the generator reads")

    @property
    def needs_moments_network(self) -> bool:
        """Whether a trained moments network predicts the prior."""
        return self.prior not in WITHOUT_NETWORK


class Classifier(Optimisation):
    """How the classifier is trained; the classifier distance compares its features."""

    steps: PositiveInt = Field(1500, description="optimiser steps")
    batch: PositiveInt = Field(64, description="images per step")
    learning_rate: PositiveFloat = Field(3e-3, description="highest learning rate")
    schedule: Literal["constant", "half-cosine", "cosine"] = Field("cosine", description="schedule of the learning rate")
    gradient_clip: PositiveFloat = Field(1.0, description="largest norm of the gradient")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="decay per step of the averaged weights")


class Sampling(Section):
    """Which samples are drawn, and how."""

    contexts: int = Field(1000, ge=2, description="number of test images; all of them if there are fewer")
    samples: int = Field(4, ge=1, description="samples per context; fair CRPS, spread and diversity need at least two")
    nfe: Evaluations = Field(10, description="network evaluations per sample")
    solver: FlowSolver = Field("midpoint", description="solver of the flow")
    grid_in_time: GridName = Field("uniform", description="flow times between which the solver steps")
    log_snr_ends: LogSnrEnds = Field((-3.0, 3.0), description="range of log(t / (1 - t)) of the log-snr grid; one more step on either side")
    momentum: float = Field(1.0, gt=0, le=1, description="momentum of ab2, ab3 and ab4; 1 means none")
    warmth: Warmth | Literal["calibrated"] = Field(1.0, description="w of Eq. 4, or calibrated on validation images")
    seed: int = Field(0, ge=0, description="seed of masks and noise")
    protocol: Protocol = Field("held-out", description="paper: contexts come from training images, as in the reference implementation")

    @property
    def part(self) -> Literal["test", "train"]:
        """The split that contexts are taken from."""
        return "train" if self.protocol == "paper" else "test"

    @property
    def noise_count(self) -> int:
        """Number of noise fields of a sample (:func:`wsdcast.warmstart.evaluations.count_noise`)."""
        return count_noise(self.solver, self.nfe)


class ImageStudy(Section):
    """Which settings `wsdcast inpaint study` compares."""

    seeds: tuple[NonNegativeInt, ...] = Field((0, 1, 2), min_length=1, description="seeds of training")
    budget: Literal["cost", "steps"] = Field("cost", description="what is equal for all priors: training cost or generator steps")
    priors: tuple[ImagePriorName, ...] = Field(
        ("warm", "standard"), min_length=1, description="priors compared with every solver and every share of visible pixels"
    )
    ablations: tuple[ImagePriorName, ...] = Field(
        ("unblended", "mean-only", "features-only"), description="priors compared with the first solver and task.visible_test only"
    )
    variants: Variants = Field(
        {},
        description="more generators, in the curves like priors: a name, and recipe keys with values, such as generator.path: blur-noise",
    )
    nfe: tuple[Evaluations, ...] = Field((2, 4, 6, 8, 10, 12, 20, 50, 100), min_length=1)
    ablation_nfe: tuple[Evaluations, ...] = Field((2, 4, 6, 10, 20), min_length=1)
    solvers: tuple[FlowSolver, ...] = Field(("midpoint", "dpm3"), min_length=1, description="solvers, each with each grid")
    grids_in_time: tuple[GridName, ...] = Field(
        ("uniform",), min_length=1, description="grids of flow times; sample.log_snr_ends and sample.momentum apply here too"
    )
    visible: tuple[Share, ...] = Field((0.01, 0.05, 0.2, 0.5, 0.9), description="shares of visible pixels, for the sensitivity")
    visible_nfe: tuple[Evaluations, ...] = Field((4, 50), description="numbers of evaluations for the sensitivity")
    warmths: tuple[Warmth | Literal["calibrated"], ...] = Field(
        (0.5, 0.9, 1.0, "calibrated"), min_length=1, description="warmths of the sensitivity; the curves use those that are numbers"
    )
    visible_contexts: int = Field(250, ge=2, description="number of test images for the sensitivity")
    contexts: int = Field(1000, ge=2, description="number of test images; all of them if there are fewer")
    samples: int = Field(2, ge=1, description="samples per context; fair CRPS, spread and diversity need at least two")

    @field_validator("variants")
    @classmethod
    def _comparable(cls, variants: Variants) -> Variants:
        return comparable(variants, (*get_args(ImagePriorName), CALIBRATED), ("moments", "generator"))


ARTEFACTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    IMAGES: (("data",), ()),
    MOMENTS: (("data", "seed", "task", "moments"), (IMAGES,)),
    GENERATOR: (("data", "seed", "task", "moments", "generator"), (IMAGES,)),
    CLASSIFIER: (("data", "classifier"), (IMAGES,)),
    SAMPLES: (("data", "seed", "task", "moments", "generator", "sample"), (GENERATOR,)),
    SCORES: (("data", "seed", "task", "moments", "generator", "sample", "classifier"), (SAMPLES, CLASSIFIER)),
    STUDY: (("data", "task", "moments", "generator", "classifier"), (IMAGES,)),
}
"""For each artefact: the sections of the recipe that it depends on, and the artefacts that it is made from."""


class ImageRecipe(Experiment):
    """The recipe of one image experiment."""

    FOLDER = "inpaint"
    DEFAULT = "made"
    CHAIN = (IMAGES, GENERATOR, SAMPLES)

    data: ImageData = ImageData()
    task: Task = Task()
    moments: ImageMomentsNetwork = ImageMomentsNetwork()
    generator: ImageGenerator = ImageGenerator()
    classifier: Classifier = Classifier()
    training: TrainingLog = TrainingLog()
    sample: Sampling = Sampling()
    study: ImageStudy = ImageStudy()

    @model_validator(mode="after")
    def _class_is_shown(self) -> ImageRecipe:
        priors = (self.generator.prior, *self.study.priors, *self.study.ablations)
        if "class-climatology" in priors and self.task.kind != "class":
            raise ValueError(f"the prior class-climatology needs contexts that show the class: task.kind is {self.task.kind}, not class")
        return self

    def parts(self, artefact: str) -> dict[str, Any]:
        """Return the sections that an artefact depends on, as plain values."""
        whole = self.dump()
        if artefact in (MOMENTS, GENERATOR):  # the settings of the test do not change the networks
            whole["task"] = {key: value for key, value in whole["task"].items() if not key.endswith("_test")}
        if artefact == STUDY:
            del whole["generator"]["prior"]  # a study trains a generator for each of its own priors
        sections = ARTEFACTS[artefact][0]
        if artefact == GENERATOR and not self.generator.needs_moments_network:
            sections = tuple(section for section in sections if section != MOMENTS)
        return {section: whole[section] for section in sections}

    def upstream(self, artefact: str) -> tuple[str, ...]:
        """Return the artefacts that an artefact is made from."""
        return ARTEFACTS[artefact][1]
