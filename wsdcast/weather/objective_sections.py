"""The sections of a weather recipe about one or few evaluations: ``few_steps``, ``crps`` and ``fine_tune``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from wsdcast.runs.recipes import Optimisation, Section

ObjectiveName = Literal["flow", "distil", "shortcut", "mean-flow", "crps", "none"]
"""What a generator is trained for (docs/objectives.md). With ``none`` there is none: the moments network forecasts with past errors."""

FROM_FLOW: tuple[ObjectiveName, ...] = ("distil", "shortcut", "mean-flow")
"""Objectives of a second network, which is trained after the flow."""

KNOW_STEP: tuple[ObjectiveName, ...] = ("shortcut", "mean-flow")
"""Objectives whose network takes the length of its step."""

NoiseInput = Literal["numbers", "fields"]
"""How noise enters a generator of the objective ``crps``: as numbers in the modulation, or as fields in the input."""


LEAST_BATCH = 4
"""The smallest batch with a sample for steps and three quarters for flow matching, the least share with which shortcuts do not collapse."""


class FewSteps(Optimisation):
    """The network of few evaluations that ``generator.objective`` trains from the flow, and how."""

    steps: PositiveInt = Field(1000, description="optimiser steps")
    learning_rate: PositiveFloat = Field(1e-3, description="the highest learning rate of the schedule")
    schedule: Literal["constant", "half-cosine", "cosine"] = Field("cosine", description="schedule of the learning rate")
    ema_decay: float = Field(0.995, ge=0, lt=1, description="decay per step of the averaged weights (EMA)")
    nfe: PositiveInt = Field(1, description="distil: evaluations of the student")
    teacher_nfe: PositiveInt = Field(4, description="distil: evaluations of the flow by the midpoint rule; an even number")
    flow_share: float = Field(
        0.875, ge=0.75, lt=1, description="shortcut, mean-flow: share of the batch for flow matching; below .75 shortcuts collapse"
    )
    begin: Literal["flow", "scratch"] = Field(
        "flow", description="weights before training: those of the flow, or random ones (an ablation)"
    )

    def flow_samples(self, batch: int) -> int:
        """The number of samples of a batch that are for flow matching, if the objective has such a share: not all, unless there is one."""
        return min(round(self.flow_share * batch), max(1, batch - 1))

    @field_validator("teacher_nfe")
    @classmethod
    def _even(cls, nfe: int) -> int:
        if nfe % 2:
            raise ValueError("the midpoint rule makes an even number of evaluations")
        return nfe


class Crps(Section):
    """The loss of ensembles, for the objective ``crps`` and for fine-tuning, and the noise that a generator of that objective reads."""

    alpha: float = Field(0.95, ge=0, le=1, description="share of fairness of the almost fair CRPS")
    spectral_weight: float = Field(0.1, ge=0, description="weight of the CRPS of zonal waves; 0: none")
    noise: NoiseInput = Field(
        "numbers", description="objective crps: noise of the generator, numbers in the modulation or fields of four length scales as inputs"
    )


class FineTune(Optimisation):
    """Training on the CRPS of short rollouts, the last stage of training."""

    steps: NonNegativeInt = Field(0, description="optimiser steps; 0: no fine-tuning")
    batch: PositiveInt = Field(4, description="samples per batch and process, each with two members")
    learning_rate: PositiveFloat = Field(1e-4, description="the highest learning rate of the schedule")
    schedule: Literal["constant", "half-cosine", "cosine"] = Field("cosine", description="schedule of the learning rate")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="decay per step of the averaged weights (EMA)")
    rollout: tuple[PositiveInt, ...] = Field((1, 2, 4, 8), min_length=1, description="lengths of the rollouts, steps, one after the other")
    nfe: PositiveInt = Field(1, description="evaluations a step that are fine-tuned")
    gradients: Literal["last", "all"] = Field("last", description="which steps of a rollout are trained: its last, or all together")
