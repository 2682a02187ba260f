"""Recipes of experiments with images, key by key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from wsdcast.runs.names import (
    CLASSIFIER,
    EMPIRICAL,
    GENERATOR,
    IMAGES,
    MOMENTS,
    SAMPLES,
    SCORES,
    STOCHASTIC,
    STUDY,
    WITHOUT_NETWORK,
    GridName,
    ImagePriorName,
    SolverName,
)
from wsdcast.runs.recipes import Experiment, GeneratorNetwork, LogSnrEnds, MomentsNetwork, Optimisation, Section, TrainingLog

Share = Annotated[float, Field(gt=0, lt=1)]
Warmth = Annotated[float, Field(ge=0, le=1)]
Protocol = Literal["held-out", "paper"]
NEEDS_MORE = ("auto", EMPIRICAL, *STOCHASTIC)
"""Solvers that need a study, statistics of a generator or several draws of noise, which exist for wind only."""


def _plain(solver: SolverName) -> SolverName:
    if solver in NEEDS_MORE:
        raise ValueError(f"{solver} is for wind alone; name another solver")
    return solver


class ImageData(Section):
    """Which images."""

    source: str = Field("made", description="'made' on the spot, 'cifar10' to download it, an npz, a folder or an archive of images")
    test: str | None = Field(None, description="a source that is the held-out part; default: the source's own, or a share of it")
    size: int | None = Field(None, ge=2, description="pixels a side that images are brought to; default: as they are")
    crop: int | None = Field(None, ge=2, description="pixels a side of the centre that is taken first; default: all that is square")
    count: int = Field(6000, ge=100, description="how many images are made; of no effect on others")
    validation_share: Share = Field(0.1, description="of the training images, for a look on the way")
    test_share: Share = Field(0.1, description="of the images of a source without a held-out part of its own")
    skip_bad: bool = Field(False, description="whether images that cannot be used are left out, and named")


class Task(Section):
    """What is hidden of an image."""

    kind: Literal["inpaint", "block", "super-resolution", "colourise", "denoise", "class"] = Field("inpaint")
    visible: tuple[Share, Share] = Field((0.05, 0.2), description="share of pixels visible in training, of inpaint and block")
    visible_test: Share = Field(0.1, description="and in contexts that are scored")
    factor: int = Field(4, ge=2, description="of super-resolution")
    noise: tuple[PositiveFloat, PositiveFloat] = Field((0.2, 0.8), description="standard deviation in training, of denoise; white is 1")
    noise_test: PositiveFloat = Field(0.5, description="and in contexts that are scored")
    flip: bool = Field(True, description="whether half of the images are mirrored in training")

    @property
    def shows_pixels(self) -> bool:
        """Whether a share of the pixels is visible as it is; the other tasks degrade them all."""
        return self.kind in ("inpaint", "block")

    @property
    def tested(self) -> str:
        """What is scored, in words."""
        degree = {"super-resolution": f", factor {self.factor}", "colourise": "", "denoise": f", noise {self.noise_test:g}", "class": ""}
        return self.kind + degree.get(self.kind, f", {100 * self.visible_test:g} % visible")

    @field_validator("visible", "noise")
    @classmethod
    def _in_order(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] > ends[1]:
            raise ValueError("the first end must not be above the second")
        return ends


class ImageMomentsNetwork(MomentsNetwork):
    """The warm-start network."""

    known_pixels: bool = Field(True, description="whether a visible pixel is its own mean, with the least std; false: the network says")


class ImageGenerator(GeneratorNetwork):
    """The flow-matching network."""

    steps: PositiveInt = Field(2000, description="optimiser steps")
    prior: ImagePriorName = Field("warm", description="where flow matching starts, and what the generator is told")

    @property
    def needs_moments_network(self) -> bool:
        """Whether the prior comes from the trained moments network."""
        return self.prior not in WITHOUT_NETWORK


class Classifier(Optimisation):
    """How the network is trained whose features the classifier distance compares."""

    steps: PositiveInt = Field(1500, description="optimiser steps")
    batch: PositiveInt = Field(64, description="images per step")
    learning_rate: PositiveFloat = Field(3e-3, description="highest learning rate")
    schedule: Literal["constant", "half-cosine", "cosine"] = Field("cosine", description="of the learning rate")
    gradient_clip: PositiveFloat = Field(1.0, description="largest norm of the gradient")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="decay per step of the averaged weights")


class Sampling(Section):
    """Which samples are drawn."""

    contexts: int = Field(1000, ge=2, description="held-out images, fewer if there are not so many")
    samples: int = Field(4, ge=1, description="for each of them; of one alone there is neither fair CRPS nor spread nor diversity")
    nfe: PositiveInt = Field(10, description="function evaluations of the generator per sample")
    solver: SolverName = Field("midpoint", description="of the flow")
    grid_in_time: GridName = Field("uniform", description="flow times between which the solver steps")
    log_snr_ends: LogSnrEnds = Field((-3.0, 3.0), description="range of the log-snr grid; before and after it one step each")
    momentum: float = Field(1.0, gt=0, le=1, description="of ab2, ab3, ab4; 1: none")
    warmth: Warmth | Literal["calibrated"] = Field(1.0, description="w of Eq. 4, or calibrated on validation images")
    seed: int = Field(0, ge=0, description="of masks and noise")
    protocol: Protocol = Field("held-out", description="paper: contexts of training images, as the reference scored")

    @property
    def part(self) -> Literal["test", "train"]:
        """The part of the images that contexts are of."""
        return "train" if self.protocol == "paper" else "test"

    @field_validator("solver")
    @classmethod
    def _usable(cls, solver: SolverName) -> SolverName:
        return _plain(solver)


class ImageStudy(Section):
    """What `wsdcast inpaint study` compares."""

    seeds: tuple[NonNegativeInt, ...] = Field((0, 1, 2), min_length=1, description="of training")
    budget: Literal["cost", "steps"] = Field("cost", description="that all priors share: the cost of training, or the generator's steps")
    priors: tuple[ImagePriorName, ...] = Field(("warm", "standard"), min_length=1, description="compared with every solver and share")
    ablations: tuple[ImagePriorName, ...] = Field(
        ("unblended", "mean-only", "features-only"), description="compared with the first solver and the share of the test"
    )
    nfe: tuple[PositiveInt, ...] = Field((2, 4, 6, 8, 10, 12, 20, 50, 100), min_length=1)
    ablation_nfe: tuple[PositiveInt, ...] = Field((2, 4, 6, 10, 20), min_length=1)
    solvers: tuple[SolverName, ...] = Field(("midpoint", "dpm3"), min_length=1, description="each with each grid")
    grids_in_time: tuple[GridName, ...] = Field(("uniform",), min_length=1, description="the range of log-snr and momentum are sample's")
    visible: tuple[Share, ...] = Field((0.01, 0.05, 0.2, 0.5, 0.9), description="shares of pixels visible, for the sensitivity")
    visible_nfe: tuple[PositiveInt, ...] = Field((4, 50), description="at these numbers of evaluations")
    warmths: tuple[Warmth | Literal["calibrated"], ...] = Field(
        (0.5, 0.9, 1.0, "calibrated"), min_length=1, description="of the warm start, each at every share, and numbers in the curves"
    )
    visible_contexts: int = Field(250, ge=2, description="held-out images for the sensitivity")
    contexts: int = Field(1000, ge=2, description="held-out images, fewer if there are not so many")
    samples: int = Field(2, ge=1, description="for each of them; of one alone there is neither fair CRPS nor spread nor diversity")

    @field_validator("solvers")
    @classmethod
    def _usable(cls, solvers: tuple[SolverName, ...]) -> tuple[SolverName, ...]:
        return tuple(_plain(solver) for solver in solvers)


ARTEFACTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    IMAGES: (("data",), ()),
    MOMENTS: (("data", "seed", "task", "moments"), (IMAGES,)),
    GENERATOR: (("data", "seed", "task", "moments", "generator"), (IMAGES,)),
    CLASSIFIER: (("data", "classifier"), (IMAGES,)),
    SAMPLES: (("data", "seed", "task", "moments", "generator", "sample"), (GENERATOR,)),
    SCORES: (("data", "seed", "task", "moments", "generator", "sample", "classifier"), (SAMPLES, CLASSIFIER)),
    STUDY: (("data", "task", "moments", "generator", "classifier"), (IMAGES,)),
}
"""Of each artefact the sections of a recipe that it depends on, and the artefacts that it is made from."""


class ImageRecipe(Experiment):
    """One whole experiment with images."""

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
    def _class_is_told(self) -> ImageRecipe:
        asked = (self.generator.prior, *self.study.priors, *self.study.ablations)
        if "class-climatology" in asked and self.task.kind != "class":
            raise ValueError(f"the prior class-climatology needs the task class, whose contexts tell it; task.kind is {self.task.kind}")
        return self

    def parts(self, artefact: str) -> dict[str, Any]:
        """Plain values of the sections that an artefact depends on."""
        whole = self.dump()
        if artefact in (MOMENTS, GENERATOR):  # what is scored later is nothing to a network
            whole["task"] = {key: value for key, value in whole["task"].items() if not key.endswith("_test")}
        if artefact == STUDY:
            del whole["generator"]["prior"]  # it has many
        sections = ARTEFACTS[artefact][0]
        if artefact == GENERATOR and not self.generator.needs_moments_network:
            sections = tuple(section for section in sections if section != MOMENTS)
        return {section: whole[section] for section in sections}

    def upstream(self, artefact: str) -> tuple[str, ...]:
        """The artefacts that one is made from."""
        return ARTEFACTS[artefact][1]
