"""The section of a recipe about the moments network, which the recipes of wind and of images share."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from wsdcast.runs.recipes import Network


class MomentsNetwork(Network):
    """The moments network, and how it is trained."""

    maximum_std: float | None = Field(1.0, ge=0.01, description="upper bound of the std, in units of the data's std; null: none")
    std: Literal["point", "channel", "change"] | Annotated[float, Field(ge=0.01)] = Field(
        "point", description="where the std comes from: predicted at each point, learned per channel, the mean's change, or this number"
    )

    @field_validator("std", mode="wrap")
    @classmethod
    def _in_one_sentence(cls, std: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(std)
        except ValidationError:  # it has one sentence for each alternative
            raise ValueError(f"expected point, channel, change or a number of at least 0.01, not {std!r}") from None

    @model_validator(mode="after")
    def _below_its_bound(self) -> Self:
        if isinstance(self.std, float) and self.std > self.highest_std:
            raise ValueError(f"std {self.std:g} is above maximum_std {self.maximum_std:g}")
        return self

    @property
    def highest_std(self) -> float:
        """The upper bound of the std; infinite if ``maximum_std`` is None."""
        return math.inf if self.maximum_std is None else self.maximum_std

    @property
    def fields(self) -> int:
        """Fields that the network predicts for each channel: the mean, and the std if the network predicts it."""
        return 2 if self.std == "point" else 1
