"""The moments of priors that need no moments network: standard, climatology, persistence, and those of a user's model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from wsdcast.data.store.analysis import Analysis
from wsdcast.runs import devices
from wsdcast.runs.errors import UserError
from wsdcast.warmstart.prior import Moments, fixed_moments, persistence_moments, standard_moments
from wsdcast.weather.climate import change_std, climatology
from wsdcast.weather.recipe import Recipe


def fixed_or_given(recipe: Recipe, record: Analysis, given: Moments | None) -> Moments:
    """Moments that do not come from the moments network: 0 and 1, the climatology at each point, persistence, or a user's model.

    Args:
        recipe: its ``generator.prior`` is standard, climatology, persistence or given.
        record: its training split gives the climatology, and the size of the change in 6 h.
        given: the user's model, ``given(context) -> (mean, std)``. The context (batch, channel, latitude, longitude) is that of
            :meth:`wsdcast.weather.samples.Samples.context`. Mean and std (batch, variable, latitude, longitude) are those of the state 6 h
            later. All are normalised: in units of each variable's standard deviation. An artefact does not record which model it was made
            with, so a run with another model needs another run directory.

    Raises:
        UserError: if the prior is ``given`` and there is no model.
    """
    if recipe.generator.prior == "given":
        require_model([recipe.generator.prior], given)
        assert given is not None
        return _checked(given, len(record.variables))
    if recipe.generator.prior == "climatology":
        return fixed_moments(*(field.to(devices.device()) for field in climatology(record)))
    if recipe.generator.prior == "persistence":
        return persistence_moments(change_std(record).to(devices.device()))
    return standard_moments(len(record.variables))


def require_model(priors: Iterable[str], given: object) -> None:
    """Check that the user gives a model if and only if a generator has the prior ``given``: a model that is not read helps nobody.

    Args:
        priors: the priors of all generators that are trained or used.
        given: the user's model, or None.

    Raises:
        UserError: if a model is missing, is no function, or is not read.
    """
    names = sorted(set(priors))
    if "given" in names and not callable(given):
        what = "" if given is None else f", and {type(given).__name__} is no function"
        raise UserError(f"prior given: the moments come from a model of yours; from Python pass it as moments=MODEL{what}")
    if given is not None and "given" not in names:
        raise UserError(f"moments: a model of yours is read only with the prior given, not with {', '.join(names)}")


def _checked(given: Moments, channels: int) -> Moments:
    """The user's model, with a check of each result.

    The model raises UserError unless it returns a mean and a std of the shape of the state, and, on a CPU, unless the std is positive.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        result = given(context)
        expected = (context.shape[0], channels, *context.shape[2:])
        if not (isinstance(result, tuple) and len(result) == 2 and all(isinstance(x, Tensor) and x.shape == expected for x in result)):
            raise UserError(f"prior given: the model must return mean and std, each a tensor of shape {tuple(expected)}")
        mean, std = (values.to(context.dtype) for values in result)  # a model may compute in bfloat16
        if std.device.type == "cpu" and not (std > 0).all():
            raise UserError("prior given: the model's std is not positive everywhere")
        # On a GPU this test would make the host wait at every step. There a NaN stops the member, or the training.
        return mean, torch.where(std > 0, std, torch.nan)

    return moments
