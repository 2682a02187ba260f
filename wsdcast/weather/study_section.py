"""The section ``study`` of a weather recipe."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator

from wsdcast.runs.names import GridName, PriorName, SolverName
from wsdcast.runs.recipes import Evaluations, Section
from wsdcast.runs.study_variants import Variants, comparable

Warmth = Annotated[float, Field(ge=0, le=1)]


class Study(Section):
    """The settings that `wsdcast study nfe` compares, in forecasts of one step and in rollouts of several steps."""

    seeds: tuple[NonNegativeInt, ...] = Field((0, 1, 2), min_length=1, description="seeds of training")
    priors: tuple[PriorName, ...] = Field(
        ("warm", "standard", "features-only"), min_length=1, description="priors that are scored after one step and in rollouts"
    )
    ablations: tuple[PriorName, ...] = Field(
        ("unblended", "plain-blend", "mean-only", "climatology"), description="priors that are scored after one step only"
    )
    variants: Variants = Field(
        {},
        description="more generators, scored like priors: a name, and recipe keys with values, such as generator.path: blur-noise",
    )
    nfe: tuple[Evaluations, ...] = Field((2, 4, 6, 10, 20), min_length=1, description="numbers of evaluations of one step")
    rollout_nfe: tuple[Evaluations, ...] = Field((4, 20), validate_default=True, description="numbers of evaluations of rollouts")
    solvers: tuple[SolverName, ...] = Field(("midpoint",), min_length=1, description="solvers, each with each grid")
    grids_in_time: tuple[GridName, ...] = Field(("uniform",), min_length=1)
    warmths: tuple[Warmth, ...] = Field((1.0,), min_length=1, description="warmths of the priors that are blended")
    starts: PositiveInt = Field(48, description="initial times of one step, spread evenly over the test split")
    rollout_starts: PositiveInt = Field(12, description="initial times of rollouts")
    members: int = Field(8, ge=2)
    leads: tuple[PositiveInt, ...] = Field((6, 24, 72, 120), min_length=1, description="hours at which forecasts are scored")

    @field_validator("variants")
    @classmethod
    def _comparable(cls, variants: Variants) -> Variants:
        return comparable(variants, get_args(PriorName), ("forcings", "moments", "generator", "few_steps", "crps", "fine_tune"))

    @field_validator("solvers")
    @classmethod
    def _named(cls, solvers: tuple[SolverName, ...]) -> tuple[SolverName, ...]:
        if "auto" in solvers:
            raise ValueError("auto is what a study is for; name the solvers")
        return solvers

    @field_validator("rollout_nfe")
    @classmethod
    def _rolled_out_are_also_one_step(cls, rollout_nfe: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if missing := set(rollout_nfe) - set(info.data.get("nfe", rollout_nfe)):
            raise ValueError(f"{', '.join(map(str, sorted(missing)))} not in nfe")
        return rollout_nfe

    @field_validator("leads")
    @classmethod
    def _whole_steps(cls, leads: tuple[int, ...]) -> tuple[int, ...]:
        if any(lead % 6 for lead in leads):
            raise ValueError("leads must be multiples of 6 h")
        return tuple(sorted(set(leads)))
