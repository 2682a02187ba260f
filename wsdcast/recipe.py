"""Recipes: one YAML file is one whole experiment, every key checked, unknown keys refused."""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wsdcast.errors import UserError
from wsdcast.names import GridName, PriorName, SolverName
from wsdcast.times import in_utc, times_between

DEFAULT = "planet"

Warmth = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Refuses unknown keys and cannot be changed after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """What the record is made of."""

    source: str = Field("planet", description="'planet' to simulate one; wb2, wb2-0.25 or arco; a URL, file, directory or glob")
    grid: str = Field("64x32", description="LONGITUDESxLATITUDES; an odd number of latitudes includes the poles")
    method: Literal["conservative", "bilinear", "nearest"] = Field("conservative", description="of regridding; of no effect on the planet")
    start: datetime | None = Field(None, description="first time to take, UTC; default: all")
    end: datetime | None = Field(None, description="last time to take, UTC; default: all")
    days: PositiveInt = Field(800, description="length of the simulated record; of no effect on files")
    planet_seed: int = Field(0, ge=0, description="continents, mountains and first state of the simulated planet")
    stirring: float = Field(
        0.35, ge=0, le=5, description="random wind that keeps the planet's next state uncertain, m/s per root of an hour"
    )
    validation_from: datetime | None = Field(None, description="UTC; default: the last fifth of the record without the test part")
    test_from: datetime | None = Field(None, description="UTC; default: the last tenth of the record")

    @field_validator("start", "end", "validation_from", "test_from")
    @classmethod
    def _in_utc(cls, time: datetime | None) -> datetime | None:
        return in_utc(time) if time is not None else None

    @field_validator("end", mode="before")
    @classmethod
    def _to_the_end_of_the_day(cls, time: Any) -> Any:
        """A date alone means all of that day."""
        if isinstance(time, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", time):
            return f"{time}T23:59:59"
        return datetime.combine(time, datetime.max.time()) if type(time) is date else time

    @model_validator(mode="after")
    def _in_order(self) -> Data:
        if self.validation_from and not (self.test_from and self.validation_from <= self.test_from):
            raise ValueError("validation_from needs a test_from that is not before it")
        return self


class Network(Section):
    """A U-Net and how it is trained (appendix B of the paper)."""

    widths: tuple[PositiveInt, ...] = Field((16, 24, 32), min_length=1, description="channels of each level, multiples of 4")
    blocks: PositiveInt = Field(1, description="residual blocks per level")
    dropout: float = Field(0.0, ge=0, lt=1)
    steps: PositiveInt = Field(1500, description="optimiser steps")
    batch: PositiveInt = Field(8, description="samples per step")
    rate: PositiveFloat = Field(2e-3, description="highest learning rate")
    accumulate: PositiveInt = Field(1, description="batches whose gradients are summed up before a step")
    warm_up: int = Field(0, ge=0, description="steps in which the rate rises from zero")
    schedule: Literal["constant", "half-cosine", "cosine"] = Field("half-cosine", description="of the rate")
    clip: PositiveFloat = Field(3.0, description="largest norm of the gradient")
    average: float = Field(0.999, ge=0, lt=1, description="decay per step of the averaged weights")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of forward and backward passes in training; weights are always fp32")
    compile: bool = Field(False, description="whether torch.compile makes kernels of the network first")
    channels_last: bool = Field(True, description="memory layout of the convolutions in training")
    recompute: bool = Field(False, description="activations in the backward pass instead of keeping them: less memory, more time")

    @model_validator(mode="after")
    def _multiples_of_four(self) -> Network:
        if any(width % 4 for width in self.widths):
            raise ValueError("widths must be multiples of 4")
        return self


class Moments(Network):
    """The warm-start network."""

    rank: int = Field(0, ge=0, le=64, description="patterns of correlation predicted beside mean and std; 0: a diagonal prior")
    folds: int = Field(0, ge=0, description="parts of the training record, each predicted by a network that has not seen it; 0: none")

    @model_validator(mode="after")
    def _more_than_one_fold(self) -> Moments:
        if self.folds == 1:
            raise ValueError("folds must be 0, or 2 and more")
        return self


class Generator(Network):
    """The flow-matching network."""

    steps: PositiveInt = Field(2000, description="optimiser steps")
    rate: PositiveFloat = Field(4e-3, description="learning rate, as above")
    prior: PriorName = Field("warm", description="where flow matching starts, and what the generator is told")
    moments: Literal["frozen", "joint", "end-to-end"] = Field("frozen", description="trained before the generator, or at the same time")

    @property
    def needs_moments_network(self) -> bool:
        """Whether the prior comes from the trained moments network."""
        return self.prior not in ("standard", "climatology", "given")

    @property
    def has_moments_model(self) -> bool:
        """Whether a model predicts the moments, the trained network or a user's, which can forecast alone and costs an evaluation."""
        return self.needs_moments_network or self.prior == "given"

    @property
    def reads_frozen_moments(self) -> bool:
        """Whether that network is an artefact of its own, trained first."""
        return self.needs_moments_network and self.moments == "frozen"


class TrainingLog(Section):
    """How training is watched and kept; what is trained does not depend on it."""

    every: PositiveInt = Field(500, description="steps between validations, each with a checkpoint")
    keep: PositiveInt = Field(2, description="checkpoints, beside the best")
    tensorboard: bool = Field(False, description="whether to log for TensorBoard too")


StaticField = Literal[
    "land_sea_mask",
    "geopotential_at_surface",
    "standard_deviation_of_orography",
    "slope_of_sub_gridscale_orography",
    "anisotropy_of_sub_gridscale_orography",
    "angle_of_sub_gridscale_orography",
]


class Context(Section):
    """What the networks read beside the wind now and 6 h before."""

    static: tuple[StaticField, ...] = Field((), description="fields of the prepared store that do not change")
    solar_time: bool = Field(False, description="mean solar time of day and time of year, as cosines and sines")


def _steps(days: float) -> int:
    return max(1, round(4 * days))


class Rollout(Section):
    """Which ensembles are run."""

    members: int = Field(50, ge=2)
    nfe: PositiveInt = Field(10, description="function evaluations of the generator per sample")
    solver: SolverName = Field("midpoint", description="or auto: solver and grid by the recipe's study, else by a table")
    grid_in_time: GridName = Field("uniform", description="flow times between which the solver steps")
    log_snr_ends: tuple[float, float] = Field((-3.0, 3.0), description="range of the log-snr grid; before and after it one step each")
    momentum: float = Field(1.0, gt=0, le=1, description="of ab2, ab3, ab4; 1: none")
    starts: PositiveInt = Field(12, description="start times, spread evenly over the test part")
    start: str | None = Field(None, description="instead: latest, a time, or FIRST/LAST/INTERVAL; UTC")
    days: PositiveFloat = Field(3.0, description="length of the forecast")
    keep: Literal["all", "statistics", "scores"] | tuple[PositiveInt, ...] = Field(
        "all", description="of the forecast; or lead times in hours"
    )
    warmth: float = Field(1.0, ge=0, le=1, description="w of Eq. 4 at sampling")
    seed: int = Field(0, ge=0, description="of the members' noise")

    @field_validator("log_snr_ends")
    @classmethod
    def _increasing(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if not -15 <= ends[0] < ends[1] <= 15:
            raise ValueError("log_snr_ends must increase and lie between -15 and 15")
        return ends

    @field_validator("start", mode="before")
    @classmethod
    def _times(cls, start: Any) -> Any:
        if isinstance(start, date):  # YAML reads a time without quotes as one
            start = start.isoformat()
        if isinstance(start, str) and start != "latest":
            times_between(start)
        return start

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
        """Lead times in hours that are computed."""
        return tuple(6 * step for step in range(1, self.steps + 1))

    @property
    def kept_leads(self) -> tuple[int, ...]:
        """Those of them that are kept."""
        return tuple(sorted(set(self.keep))) if isinstance(self.keep, tuple) else self.leads

    @property
    def needs_statistics(self) -> bool:
        """Whether the solver needs statistics of the generator."""
        return self.solver == "dpm3-v3"

    @property
    def steps(self) -> int:
        """Length of the forecast in steps of 6 h."""
        return _steps(self.days)


class Study(Section):
    """What `wsdcast study nfe` compares."""

    seeds: tuple[NonNegativeInt, ...] = Field((0, 1, 2), min_length=1, description="of training")
    priors: tuple[PriorName, ...] = Field(("warm", "standard", "features-only"), min_length=1, description="one step and rolled out")
    ablations: tuple[PriorName, ...] = Field(("unblended", "plain-blend", "mean-only", "climatology"), description="one step alone")
    nfe: tuple[PositiveInt, ...] = Field((2, 4, 6, 10, 20), min_length=1, description="one step")
    rollout_nfe: tuple[PositiveInt, ...] = Field((4, 20), description="rolled out")
    solvers: tuple[SolverName, ...] = Field(("midpoint",), min_length=1, description="each with each grid")
    grids_in_time: tuple[GridName, ...] = Field(("uniform",), min_length=1)
    warmths: tuple[Warmth, ...] = Field((1.0,), min_length=1, description="of priors that are blended")
    starts: PositiveInt = Field(48, description="of one step, spread evenly over the test part")
    rollout_starts: PositiveInt = Field(12, description="of forecasts")
    members: int = Field(8, ge=2)
    leads: tuple[PositiveInt, ...] = Field((6, 24, 72, 120), min_length=1, description="hours at which forecasts are scored")

    @field_validator("solvers")
    @classmethod
    def _named(cls, solvers: tuple[SolverName, ...]) -> tuple[SolverName, ...]:
        if "auto" in solvers:
            raise ValueError("auto is what a study is for; name the solvers")
        return solvers

    @model_validator(mode="after")
    def _rolled_out_are_also_one_step(self) -> Study:
        if missing := set(self.rollout_nfe) - set(self.nfe):
            raise ValueError(f"rollout_nfe: {', '.join(map(str, sorted(missing)))} not in nfe")
        return self

    @field_validator("leads")
    @classmethod
    def _whole_steps(cls, leads: tuple[int, ...]) -> tuple[int, ...]:
        if any(lead % 6 for lead in leads):
            raise ValueError("leads must be multiples of 6 h")
        return tuple(sorted(set(leads)))


class Recipe(Section):
    """One whole experiment."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="names the run directory runs/NAME")
    seed: int = Field(0, ge=0, description="of training: first weights, order of samples, noise")
    data: Data = Data()
    context: Context = Context()
    moments: Moments = Moments()
    generator: Generator = Generator()
    training: TrainingLog = TrainingLog()
    rollout: Rollout = Rollout()
    study: Study = Study()

    def changed(self, **changes: Any) -> Recipe:
        """A copy with keys changed, given as ``section__key=value`` or ``key=value``; None as a value leaves the key as it is.

        Raises:
            UserError: if a value is not allowed.
        """
        content = self.model_dump()
        for name, value in changes.items():
            if value is not None:
                *section, key = name.split("__")
                (content[section[0]] if section else content)[key] = value
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            raise UserError("; ".join(f"{_option(item)}: {_reason(item)}" for item in _first_of_each(error))) from None

    def dump(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        return self.model_dump(mode="json")


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe by path, or by the name of one that is shipped.

    Raises:
        UserError: if there is none, or it has unknown keys or values that are not allowed.
    """
    path = Path(recipe)
    if path.suffix not in (".yaml", ".yml"):
        shipped = _shipped_directory() / f"{recipe}.yaml"
        if not shipped.is_file():
            raise UserError(f"recipe '{recipe}': neither a .yaml file nor one of the shipped: {', '.join(shipped_recipes())}")
        path = shipped
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: a date that no calendar has
        raise UserError(f"recipe {path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise UserError(f"recipe {path}: expected keys and values")
    return checked(content, f"recipe {path}")


def checked(content: dict[str, Any], where: str) -> Recipe:
    """A recipe from plain values; ``where`` they came from begins the message.

    Raises:
        UserError: naming every key that is unknown, missing or not allowed.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc'])) or 'recipe'}: {_reason(item)}" for item in error.errors())
        raise UserError(f"{where}: {'; '.join(problems)}") from None


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _shipped_directory().glob("*.yaml"))


def _shipped_directory() -> Path:
    """``pipelines/`` beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).parent
    inside = here / "pipelines"
    return inside if inside.is_dir() else here.parent / "pipelines"


def _first_of_each(error: ValidationError) -> list[Any]:
    """The first mistake of each key; a wrong item of a list makes a second one of the list."""
    found: dict[Any, Any] = {}
    for item in error.errors():
        found.setdefault(item["loc"][:2], item)
    return list(found.values())


def _option(item: Any) -> str:
    """How a key is called on the command line."""
    return f"--{item['loc'][:2][-1].replace('_', '-')}"


def _reason(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown key"
    reason = str(item["msg"]).removeprefix("Value error, ")
    return f"{reason[0].lower()}{reason[1:]}, not {item['input']!r}" if item["type"] != "value_error" else reason
