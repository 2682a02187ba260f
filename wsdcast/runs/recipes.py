"""Recipes of every kind. One YAML file describes one whole experiment. Every key is checked, and unknown keys are errors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
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

from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.mistakes import first_of_each, of_key, types_in
from wsdcast.runs.names import PathName
from wsdcast.runs.yaml_text import yaml_of


def digest_of(value: Any) -> str:
    """A short digest of plain values, such as those of a recipe."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Section(BaseModel):
    """A section of a recipe. Unknown keys are errors, and a section is immutable after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers_of_64_bits(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is expected, which pydantic would read as 1 and 0, and numbers beyond 64 bits."""
        types = types_in(cls.model_fields[str(info.field_name)].annotation)
        if bool not in types and types & {int, float}:
            several = isinstance(value, list | tuple | dict)
            for item in value.values() if isinstance(value, dict) else value if several else (value,):
                if isinstance(item, bool):
                    raise ValueError(f"expected {'numbers' if several else 'a number'}, not {str(item).lower()}")
                if isinstance(item, int) and abs(item) >= 2**63:
                    raise ValueError(f"expected {'numbers' if several else 'a number'} below 2**63")
        return value


Evaluations = Annotated[int, Field(gt=0, le=2**24)]
"""Network evaluations of a sample. With more of them neighbouring flow times are equal in single precision, which networks get."""


class Optimisation(Section):
    """How a network is trained (appendix B of the paper)."""

    steps: PositiveInt = Field(1500, description="optimiser steps")
    batch: PositiveInt = Field(8, description="samples per batch and process")
    learning_rate: PositiveFloat = Field(2e-3, description="the highest learning rate of the schedule")
    accumulate: PositiveInt = Field(1, description="batches of a step; it follows the mean over their samples")
    warmup_steps: int = Field(0, ge=0, description="steps in which the learning rate rises from zero")
    schedule: Literal["constant", "half-cosine", "cosine"] = Field("half-cosine", description="schedule of the learning rate")
    gradient_clip: PositiveFloat = Field(3.0, description="largest norm of the gradient")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay per step of the averaged weights (EMA)")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of forward and backward passes in training; weights are always fp32")
    compile: bool = Field(False, description="whether torch.compile makes kernels of the network first")
    channels_last: bool = Field(True, description="memory layout of the convolutions in training")


class Network(Optimisation):
    """A U-Net (appendix B) and how it is trained."""

    widths: tuple[PositiveInt, ...] = Field((16, 24, 32), min_length=1, description="channels of each level, multiples of 4")
    blocks: int = Field(1, gt=0, le=1000, description="residual blocks per level")  # a million would be built for hours
    dropout: float = Field(0.0, ge=0, lt=1)
    activation_checkpointing: bool = Field(False, description="activations computed again in the backward pass: less memory, more time")
    attention: tuple[NonNegativeInt, ...] = Field((), description="levels, from 0, that have attention")

    @model_validator(mode="after")
    def _possible(self) -> Network:
        if any(width % 4 for width in self.widths):
            raise ValueError("widths must be multiples of 4")
        if any(level >= len(self.widths) for level in self.attention):
            raise ValueError(f"attention: levels are 0 to {len(self.widths) - 1}")
        return self


class TrainingTimes(Section):
    """The distribution of the flow time t in training; t is 0 for noise and 1 for data.

    The authors of the paper draw log((1 - t) / t) from a normal distribution of mean -1.2 and scale 1.2. Here that is the logit-normal
    distribution of mean 1.2 and scale 1.2.
    """

    kind: Literal["logit-normal", "uniform"] = Field("logit-normal", description="distribution of the flow time t")
    mean: float = Field(0.0, description="mean of log(t / (1 - t)); no effect on uniform times; the authors of the paper use 1.2")
    scale: PositiveFloat = Field(1.0, description="standard deviation of log(t / (1 - t)); the authors use 1.2")


class GeneratorNetwork(Network):
    """The generator, its path and how it is trained."""

    steps: PositiveInt = Field(2000, description="optimiser steps")
    path: PathName = Field("straight", description="path from noise to data; blur-noise: arXiv 2511.16904; blur: no noise, an ablation")
    bnr: float = Field(0.5, ge=0, description="blur-to-noise ratio of the paths blur-noise and blur, in pixels or rows of the grid")
    loss_weight: Literal["uniform", "edm"] = Field("uniform", description="weight of flow times in the loss; edm: Karras et al. (2022)")
    times: TrainingTimes = TrainingTimes()

    @model_validator(mode="after")
    def _blurs(self) -> Self:
        if self.path == "blur" and self.bnr < 0.1:
            raise ValueError("the path blur needs a bnr of at least 0.1; with less there would be waves left at its start")
        return self

    @property
    def followed_path(self) -> PathName:
        """The path itself: blur-noise without blur is the straight path."""
        return "straight" if self.path == "blur-noise" and not self.bnr else self.path

    @property
    def heads(self) -> int:
        """Fields that the generator predicts for each channel: two on the path blur-noise."""
        return 2 if self.followed_path == "blur-noise" else 1


def _distinct(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    # In single precision, which networks get, the flow time of 17 is 1. In double precision, that of solvers, close ends have equal times.
    if low < -15 or high > 15 or high - low <= 0.01:
        raise ValueError("must increase by more than 0.01, between -15 and 15; flow times would be equal otherwise")
    return ends


LogSnrEnds = Annotated[tuple[float, float], AfterValidator(_distinct)]
"""Lowest and highest half log signal-to-noise ratio of a grid of flow times."""


class TrainingLog(Section):
    """Validation, checkpoints and logs of training. The trained networks do not depend on this section."""

    validate_every: PositiveInt = Field(500, description="steps between validations, each with a checkpoint")
    keep_checkpoints: PositiveInt = Field(2, description="newest checkpoints that are kept")
    tensorboard: bool = Field(False, description="whether to log for TensorBoard")


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"'{name}': expected letters, digits, _, - and . without spaces, not beginning with - or .")
    return name


class Experiment(Section):
    """A recipe: one whole experiment."""

    FOLDER: ClassVar[str] = ""
    """Folder in ``pipelines/`` of the recipes of this kind."""
    DEFAULT: ClassVar[str]
    """Name of the default recipe."""
    CHAIN: ClassVar[tuple[str, ...]]
    """Artefacts of the stages. Each is made from the one before it."""

    name: Annotated[str, AfterValidator(_file_name)] = Field(description="names the run directory runs/NAME")
    seed: int = Field(0, ge=0, description="seed of training: initial weights, order of samples, noise")

    def parts(self, artefact: str) -> dict[str, Any]:
        """Plain values of the sections that an artefact depends on. If only other sections change, the artefact stays current."""
        raise NotImplementedError

    def upstream(self, artefact: str) -> tuple[str, ...]:
        """The artefacts that ``artefact`` is made from. If the content of one of them changes, ``artefact`` is no longer current."""
        raise NotImplementedError

    def changed(self, **changes: Any) -> Self:
        """A copy with changed keys, given as ``section__key=value`` or ``key=value``. A value of None leaves the key as it is.

        Paths may be :class:`Path`; a recipe has their text.

        Raises:
            UserError: if there is no such key, it is a whole section, or a value is not allowed.
        """
        return with_keys(self, changes, of_key)

    def dump(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """A short digest that names the recipe on pages of results.

        It is that of the keys that differ from their defaults, so that it stays the same when a version adds keys.
        """
        return digest_of(self.model_dump(mode="json", exclude_defaults=True))


Kind = TypeVar("Kind", bound=Experiment)


def with_keys(recipe: Kind, changes: Mapping[str, Any], in_words: Callable[[Any, type[BaseModel]], str]) -> Kind:
    """A copy of a recipe with changed keys, as :meth:`Experiment.changed`. ``in_words`` says what is wrong with a value."""
    content = recipe.model_dump()
    for name, value in changes.items():
        if value is not None:
            set_key(content, recipe, name, "__", str(value) if isinstance(value, Path) else value)
    try:
        return type(recipe).model_validate(content)
    except ValidationError as error:
        raise UserError("; ".join(in_words(item, type(recipe)) for item in first_of_each(error))) from None


def set_key(content: dict[str, Any], recipe: Experiment, name: str, between: str, value: Any, where: str = "") -> None:
    """Set one key of the plain values of a recipe.

    Args:
        content: the values, changed in place.
        recipe: whose values they are.
        name: the sections and the key, with ``between`` between them.
        between: separates the parts of the name.
        value: the new value.
        where: begins the message of an error.

    Raises:
        UserError: if the key is a whole section, or is none. One that is unknown in its section is left to the recipe to refuse.
    """
    *sections, key = parts = name.split(between)
    section: Any = recipe
    for part in sections:
        content, section = content.setdefault(part, {}), getattr(section, part, None)
        if not isinstance(content, dict):
            break
    if not isinstance(content, dict) or not all(parts):
        raise UserError(f"{where}{'.'.join(parts)}: unknown key")
    if isinstance(whole := getattr(section, key, None), Section):
        raise UserError(f"{where}{name}: a section; name one of its keys, such as {name}{between}{next(iter(type(whole).model_fields))}")
    content[key] = value


def load(recipe: object, kind: type[Kind]) -> Kind:
    """Read a recipe by the path of a .yaml file, or by the name of a recipe that comes with the package.

    Raises:
        UserError: if there is no such recipe, or it has unknown keys or values that are not allowed.
    """
    if not isinstance(recipe, str | Path):
        raise UserError(f"recipe: expected a path or the name of a shipped one, not {type(recipe).__name__}")
    path = Path(recipe)
    if path.suffix not in (".yaml", ".yml"):
        shipped = _shipped_directory() / kind.FOLDER / f"{recipe}.yaml"
        if not shipped.is_file():
            if path.is_dir():
                raise UserError(f"recipe '{recipe}': is a directory; a run directory is given as --run, from Python as run=")
            raise UserError(f"recipe '{recipe}': neither a .yaml file nor one of the shipped: {', '.join(shipped_recipes(kind))}")
        path = shipped
    try:
        content = yaml_of(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"recipe {path}: cannot be read ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"recipe {path}: expected keys and values")
    return checked(content, f"recipe {path}", kind)


def checked(content: dict[str, Any], where: str, kind: type[Kind]) -> Kind:
    """A recipe from plain values. ``where`` says where they come from; it begins the message of an error.

    Raises:
        UserError: if keys are unknown or missing, or values are not allowed; the message names all of them.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = (of_key(item, kind) for item in error.errors())
        raise UserError(f"{where}: {'; '.join(problems)}") from None


def shipped_recipes(kind: type[Experiment]) -> list[str]:
    """Names of the recipes of this kind that come with the package."""
    return sorted(path.stem for path in (_shipped_directory() / kind.FOLDER).glob("*.yaml"))


def _shipped_directory() -> Path:
    """The folder ``pipelines/``. It is inside the package in a wheel, and next to it in a checkout."""
    package = Path(__file__).parents[1]  # wsdcast/
    inside = package / "pipelines"
    return inside if inside.is_dir() else package.parent / "pipelines"
