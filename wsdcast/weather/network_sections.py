"""The sections of a weather recipe about the networks: ``forcings``, ``moments``, ``generator`` and ``training``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from wsdcast.runs.moments_section import MomentsNetwork
from wsdcast.runs.names import WITHOUT_NETWORK, PriorName
from wsdcast.runs.recipes import GeneratorNetwork, Section, TrainingLog
from wsdcast.weather.objective_sections import KNOW_STEP, ObjectiveName

StaticName = Literal[
    "land_sea_mask",
    "geopotential_at_surface",
    "standard_deviation_of_orography",
    "slope_of_sub_gridscale_orography",
    "anisotropy_of_sub_gridscale_orography",
    "angle_of_sub_gridscale_orography",
]


class Forcings(Section):
    """Inputs of both networks in addition to the state now. Forcing variables are in ``data.forcings``."""

    past_states: NonNegativeInt = Field(1, description="states before the state now, 6 h apart: 1 for the state 6 h before")
    static: tuple[StaticName, ...] = Field((), description="fields of the prepared store that do not change")
    solar_time: bool = Field(False, description="mean solar time of day and time of year, as cosines and sines")
    latitude_longitude: bool = Field(False, description="latitude and longitude, as sines and cosines")


class Moments(MomentsNetwork):
    """The moments network, and how it is trained."""

    folds: int = Field(0, ge=0, description="folds of the training split, each predicted by a network that has not seen it; 0: none")

    @model_validator(mode="after")
    def _more_than_one_fold(self) -> Moments:
        if self.folds == 1:
            raise ValueError("folds must be 0, or 2 and more")
        return self


class Training(TrainingLog):
    """Weights of the loss, and validation, checkpoints and logs of training. The trained networks depend on the weights alone."""

    weights: dict[str, PositiveFloat] = Field(
        {}, description="factors of the loss by variable, or by channel such as geopotential@500, in addition to those of the docs"
    )


class Generator(GeneratorNetwork):
    """The generator, which is trained by flow matching, and its prior."""

    learning_rate: PositiveFloat = Field(4e-3, description="the highest learning rate of the schedule")
    prior: PriorName = Field("warm", description="where flow matching starts, and what the generator reads of the moments")
    objective: ObjectiveName = Field("flow", description="flow, a network of few evaluations from it, crps: no flow, or none: no generator")
    moments: Literal["frozen", "joint", "end-to-end"] = Field(
        "frozen", description="whether the moments network is trained before the generator or at the same time"
    )
    moments_weight: PositiveFloat = Field(
        1.0, description="factor of the moments' loss if both are trained at the same time; the paper's authors use 0.01"
    )

    @model_validator(mode="after")
    def _trainable(self) -> Generator:
        if self.objective in KNOW_STEP and self.followed_path != "straight":
            raise ValueError(f"the objective {self.objective} needs the straight path, not {self.path}")
        if self.objective == "crps" and (self.path != "straight" or self.moments != "frozen"):
            raise ValueError("the objective crps has no flow: leave path straight and moments frozen")
        if self.objective == "none" and not self.reads_frozen_moments:
            raise ValueError("the objective none forecasts with the moments network alone: leave prior warm and moments frozen")
        return self

    @property
    def needs_moments_network(self) -> bool:
        """Whether the prior comes from the trained moments network."""
        return self.prior not in WITHOUT_NETWORK

    @property
    def has_moments_model(self) -> bool:
        """Whether a model predicts the moments: the trained network or a user's model.

        Such a model can forecast without the generator, and each sample costs one evaluation of it.
        """
        return self.needs_moments_network or self.prior == "given"

    @property
    def reads_frozen_moments(self) -> bool:
        """Whether the moments network is trained before the generator, as an artefact of its own."""
        return self.needs_moments_network and self.moments == "frozen"
