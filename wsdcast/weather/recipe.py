"""The recipe of a weather experiment: its sections, their keys, and the artefacts that depend on them."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, ValidationInfo, field_validator, model_validator

from wsdcast.data.store.zarr_store import Channels
from wsdcast.data.variables import DEFAULT, name_and_level
from wsdcast.runs.mistakes import shown
from wsdcast.runs.names import (
    ANALYSIS,
    FEW_STEPS,
    FINE_TUNED,
    FORECAST,
    GENERATOR,
    MOMENTS,
    PAST_ERRORS_FORECAST,
    PREDICTIONS,
    SCORES,
    STUDY,
    GridName,
    SolverName,
)
from wsdcast.runs.recipes import Evaluations, Experiment, LogSnrEnds, Section, load
from wsdcast.runs.times import LONGEST, all_or_lead_times, in_one_spelling, in_utc, text_of
from wsdcast.warmstart.evaluations import count_noise
from wsdcast.warmstart.few_steps import HALVINGS
from wsdcast.weather.network_sections import Forcings, Generator, Moments, Training
from wsdcast.weather.objective_sections import FROM_FLOW, KNOW_STEP, LEAST_BATCH, Crps, FewSteps, FineTune
from wsdcast.weather.study_section import Study


def _time(value: Any) -> datetime:
    """A time from its text. Pydantic itself would read a number as seconds since 1970, and no time that ends with the hour.

    Fractions of a second are dropped: the times of a record have none, and earlier versions stored the end of a day with and without.
    """
    try:
        time = datetime.fromisoformat(text_of(value))
    except (TypeError, ValueError):
        raise ValueError(f"expected a time such as 2020-01-01 or 2020-01-01T18, not {shown(repr(value), value)}") from None
    return in_utc(time.replace(microsecond=0))


Time = Annotated[datetime, BeforeValidator(_time)]
"""A time in UTC, without a time zone."""


class Data(Section):
    """The record: its source, variables, grid, times and splits."""

    source: str = Field("planet", description="'planet' to simulate one; wb2, wb2-0.25 or arco; gfs or ifs; a URL, file, directory or glob")
    variables: tuple[str, ...] = Field(DEFAULT, min_length=1, description="what is forecast: names of WeatherBench 2, as geopotential@500")
    forcings: tuple[str, ...] = Field((), description="further variables that the networks read and do not forecast")
    grid: str = Field("64x32", coerce_numbers_to_str=True, description="LONGITUDESxLATITUDES; an odd number of rows includes the poles")
    method: Literal["conservative", "bilinear", "nearest"] = Field("conservative", description="regridding method; no effect on the planet")
    start: Time | None = Field(None, description="first time to take, UTC; default: the first of the source")
    end: Time | None = Field(None, description="last time to take, UTC; default: the last of the source")
    skip: tuple[Time, ...] = Field((), description="times of a source to leave out, UTC; they become gaps")
    days: int = Field(800, gt=0, le=73_000, description="length of the simulated record, up to 2199; no effect on files")
    planet_seed: int = Field(0, ge=0, description="continents, mountains and first state of the simulated planet")
    stirring: float = Field(
        0.35, ge=0, le=5, description="random wind that keeps the planet's next state uncertain, m/s per root of an hour"
    )
    validation_from: Time | None = Field(
        None, description="begin of the validation split, UTC; default: the last fifth of the record without the test split"
    )
    test_from: Time | None = Field(None, description="begin of the test split, UTC; default: last tenth of the record, 3 steps or more")

    @field_validator("variables", "forcings")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            name_and_level(name)
        return names

    @field_validator("skip")
    @classmethod
    def _sorted(cls, times: tuple[datetime, ...]) -> tuple[datetime, ...]:
        return tuple(sorted(times))

    @field_validator("end", mode="before")
    @classmethod
    def _to_the_end_of_the_day(cls, time: Any) -> Any:
        """A date without a time includes all of that day."""
        with suppress(TypeError, ValueError):
            time = date.fromisoformat(text_of(time))
        return datetime.combine(time, datetime.max.time()) if type(time) is date else time

    @property
    def channels(self) -> Channels:
        """The channels of the prepared store."""
        return Channels(self.variables, self.forcings)

    @model_validator(mode="after")
    def _each_once(self) -> Data:
        names = self.channels.all
        if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"variables and forcings have {', '.join(repeated)} more than once")
        return self

    @model_validator(mode="after")
    def _in_order(self) -> Data:
        if self.validation_from and not (self.test_from and self.validation_from <= self.test_from):
            raise ValueError("validation_from needs a test_from that is not before it")
        return self


def _steps(days: float) -> int:
    return max(1, round(4 * days))


class Rollout(Section):
    """The ensembles of a rollout, how they are sampled, and what is stored."""

    members: int = Field(50, ge=2)
    nfe: Evaluations = Field(10, description="network evaluations per sample")
    solver: SolverName = Field("midpoint", description="or auto: solver and grid by the recipe's study, else by a table")
    grid_in_time: GridName = Field("uniform", description="flow times between which the solver steps")
    log_snr_ends: LogSnrEnds = Field((-3.0, 3.0), description="range of log(t / (1 - t)) of the log-snr grid; one more step on either side")
    momentum: float = Field(1.0, gt=0, le=1, description="momentum of the solvers ab2, ab3, ab4; 1: none")
    starts: PositiveInt = Field(12, description="number of initial times, spread evenly over the test split")
    start: str | None = Field(None, description="initial times instead of starts: latest, a time, or FIRST/LAST/INTERVAL; UTC")
    days: float = Field(3.0, gt=0, le=LONGEST.days, description="length of the forecast")
    keep: Literal["all", "statistics", "scores"] | tuple[PositiveInt, ...] = Field("all", description="what is kept, or lead times, hours")
    variables: tuple[str, ...] | None = Field(None, min_length=1, description="variables that are stored; default: all of data.variables")
    forcings: Literal["held", "prescribed"] = Field(
        "held", description="forcing variables in a forecast: as at the initial time, or as the record has them"
    )
    warmth: float = Field(1.0, ge=0, le=1, description="w of Eq. 4 at sampling")
    seed: int = Field(0, ge=0, description="seed of the members' noise")

    @field_validator("start", mode="before")
    @classmethod
    def _times(cls, start: Any) -> Any:
        return in_one_spelling(start)

    @field_validator("keep", mode="before")
    @classmethod
    def _known(cls, keep: Any) -> Any:
        return all_or_lead_times(keep)

    @field_validator("keep")
    @classmethod
    def _reached(cls, keep: str | tuple[int, ...], info: ValidationInfo) -> str | tuple[int, ...]:
        if isinstance(keep, str) or "days" not in info.data:
            return keep
        last = 6 * _steps(info.data["days"])
        if not keep or any(lead % 6 or lead > last for lead in keep):
            raise ValueError(f"lead times are multiples of 6 h up to {last} h, not {', '.join(map(str, keep)) or 'none'}")
        return keep

    @property
    def leads(self) -> tuple[int, ...]:
        """The lead times that are computed, hours."""
        return tuple(6 * step for step in range(1, self.steps + 1))

    @property
    def kept_leads(self) -> tuple[int, ...]:
        """The lead times that are stored, hours."""
        return tuple(sorted(set(self.keep))) if isinstance(self.keep, tuple) else self.leads

    @property
    def noise_count(self) -> int:
        """Number of noise fields of a sample (:func:`wsdcast.warmstart.evaluations.count_noise`)."""
        return count_noise(self.solver, self.nfe)

    @property
    def steps(self) -> int:
        """Length of the forecast in steps of 6 h."""
        return _steps(self.days)


class Score(Section):
    """What the scores of a forecast show first."""

    headline: str | None = Field(
        None, description="variable of tables and figures that show one; both: the 10 m wind; default: both, or else the first variable"
    )


ARTEFACTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    ANALYSIS: (("data",), ()),
    MOMENTS: (("data", "seed", "forcings", "moments"), (ANALYSIS,)),
    PREDICTIONS: (("data", "seed", "forcings", "moments"), (MOMENTS,)),
    GENERATOR: (("data", "seed", "forcings", "moments", "generator"), (ANALYSIS,)),
    FEW_STEPS: (("data", "seed", "forcings", "moments", "generator"), (GENERATOR,)),
    FINE_TUNED: (("data", "seed", "forcings", "moments", "generator"), ()),
    FORECAST: (("data", "seed", "forcings", "moments", "generator", "rollout"), ()),
    PAST_ERRORS_FORECAST: (("data", "seed", "forcings", "moments", "rollout"), (MOMENTS,)),
    SCORES: (("data", "seed", "forcings", "moments", "generator", "rollout"), (FORECAST,)),
    STUDY: (("data", "forcings", "moments", "generator", "score"), (ANALYSIS,)),
}
"""For each artefact, the sections of a recipe that it depends on and the artefacts that it is made from. The objective of the generator may
add sections (:meth:`Recipe.parts`). A fine-tuned network and a forecast are made from the last network (:meth:`Recipe.upstream`)."""
AFTER_TRAINING = (FORECAST, SCORES, STUDY)
"""Artefacts that depend on all networks."""


class Recipe(Experiment):
    """The recipe of one whole weather experiment."""

    DEFAULT = "planet"
    CHAIN = (ANALYSIS, MOMENTS, GENERATOR, FEW_STEPS, FINE_TUNED, FORECAST)

    data: Data = Data()
    forcings: Forcings = Forcings()
    moments: Moments = Moments()
    generator: Generator = Generator()
    few_steps: FewSteps = FewSteps()
    crps: Crps = Crps()
    fine_tune: FineTune = FineTune()
    training: Training = Training()
    rollout: Rollout = Rollout()
    score: Score = Score()
    study: Study = Study()

    @model_validator(mode="after")
    def _few_steps_trainable(self) -> Recipe:
        few, generator = self.few_steps, self.generator
        if generator.objective in KNOW_STEP and few.batch < LEAST_BATCH:
            raise ValueError(f"few_steps.batch {few.batch}: the objective {generator.objective} needs {LEAST_BATCH} samples or more")
        others = few.precision == "bf16" or few.compile or generator.attention or generator.activation_checkpointing
        if generator.objective == "mean-flow" and others:
            raise ValueError("the objective mean-flow works without bf16, compile, attention and activation_checkpointing only")
        return self

    @model_validator(mode="after")
    def _fine_tunable(self) -> Recipe:
        numbers, nfe = self.few_numbers, self.fine_tune.nfe
        if self.fine_tune.steps and numbers == (0,):
            raise ValueError("fine_tune.steps: the objective none has no generator to fine-tune; set it to 0")
        if self.fine_tune.steps and numbers and nfe not in numbers:
            raise ValueError(f"fine_tune.nfe {nfe}: the objective {self.generator.objective} makes {', '.join(map(str, numbers))}")
        if self.fine_tune.steps and self.generator.prior == "given":
            raise ValueError("fine_tune.steps: a user's model of the moments, the prior given, cannot be trained through")
        return self

    @model_validator(mode="after")
    def _folds_have_an_effect(self) -> Recipe:
        joint = self.generator.needs_moments_network and not self.generator.reads_frozen_moments
        if self.moments.folds and joint:
            raise ValueError(f"moments.folds {self.moments.folds}: not with generator.moments {self.generator.moments}, only with frozen")
        return self

    def parts(self, artefact: str) -> dict[str, Any]:
        """Plain values of the sections that an artefact depends on."""
        whole, (sections, _) = self.dump(), ARTEFACTS[artefact]
        if artefact == PAST_ERRORS_FORECAST and not self.generator.reads_frozen_moments:
            sections = ARTEFACTS[FORECAST][0]  # the moments network is part of the generator, or there is no moments network
        if artefact == STUDY:
            del whole["generator"]["prior"]  # a study has several priors
        direct, after_flow = self.generator.objective == "crps", self.generator.objective in FROM_FLOW
        if artefact == GENERATOR and after_flow:
            whole["generator"]["objective"] = "flow"  # whichever network is trained after it
        if after_flow and artefact in (FEW_STEPS, FINE_TUNED, *AFTER_TRAINING):
            sections += ("few_steps",)
        if (direct and artefact == GENERATOR) or ((direct or self.fine_tune.steps) and artefact in (FINE_TUNED, *AFTER_TRAINING)):
            sections += ("crps",)
        if self.fine_tune.steps and artefact in (FINE_TUNED, *AFTER_TRAINING):
            sections += ("fine_tune",)
        parts = {section: whole[section] for section in sections}
        if "moments" in sections and self.training.weights:
            parts["training"] = {"weights": whole["training"]["weights"]}
        return parts

    @property
    def few_numbers(self) -> tuple[int, ...]:
        """The numbers of evaluations that a network of few evaluations makes; all others are those of the flow."""
        halved = tuple(2**halvings for halvings in range(HALVINGS + 1))
        return {"flow": (), "none": (0,), "crps": (1,), "distil": (self.few_steps.nfe,)}.get(self.generator.objective, halved)

    @property
    def networks(self) -> tuple[str, ...]:
        """The artefacts of the trained networks, in the order in which they are trained."""
        frozen, objective = self.generator.reads_frozen_moments, self.generator.objective
        all_networks = {MOMENTS: frozen, GENERATOR: objective != "none", FEW_STEPS: objective in FROM_FLOW}
        all_networks[FINE_TUNED] = self.fine_tune.steps > 0
        return tuple(name for name, is_trained in all_networks.items() if is_trained)

    def upstream(self, artefact: str) -> tuple[str, ...]:
        """The artefacts that ``artefact`` is made from."""
        if artefact == PAST_ERRORS_FORECAST and not self.generator.reads_frozen_moments:
            return (GENERATOR,)
        return {FINE_TUNED: self.networks[-2:-1], FORECAST: self.networks[-1:]}.get(artefact, ARTEFACTS[artefact][1])


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe by the path of a .yaml file, or by the name of a recipe that comes with the package.

    Raises:
        UserError: if there is no such recipe, or it has unknown keys or values that are not allowed.
    """
    return load(recipe, Recipe)
