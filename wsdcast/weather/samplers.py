"""Samplers with the solver and the grid of flow times that a recipe names."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from wsdcast.nets.unet import UNet
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import TORCHDIFFEQ, PathName
from wsdcast.sampling.acceleration import accelerated
from wsdcast.sampling.samplers import Sampler, direct_sampler, generator_sampler, past_errors_sampler
from wsdcast.warmstart.evaluations import grid, require_possible, solver, steps_for
from wsdcast.warmstart.prior import frozen_prior
from wsdcast.warmstart.times import uniform
from wsdcast.weather.objective_sections import KNOW_STEP, ObjectiveName
from wsdcast.weather.recipe import Recipe, Rollout
from wsdcast.weather.trained import Trained


def sampler_of(networks: Trained, settings: Rollout, *, deterministic: bool = False) -> Sampler:
    """The sampler of Algorithm 2 with the settings of a recipe. On a GPU it is accelerated.

    Args:
        networks: generator and moments.
        settings: the rollout section of the recipe.
        deterministic: on a GPU, compute in float32 and give the same bits every time.

    Raises:
        UserError: if the solver cannot take exactly ``nfe`` evaluations, or cannot use this grid, or a network of few evaluations is asked
            for another warmth than 1.
    """
    _require_possible(settings, networks.few, networks.objective, networks.path.name)
    if few := networks.few.get(settings.nfe):
        sampler = few_sampler(networks, few, settings.nfe)
        return accelerated(sampler, [few, networks.moments], recorded=networks.ours, deterministic=deterministic)
    times = grid(settings.grid_in_time, steps_for(settings.solver, settings.nfe), settings.log_snr_ends)
    solve = solver(settings.solver, settings.momentum)
    sampler = generator_sampler(networks.generator, networks.prior_of, settings.nfe, settings.warmth, times, solve, networks.path)
    # torchdiffeq's methods read the error on the host, and a user's model may read something there too. A CUDA graph cannot record that.
    recorded = networks.ours and settings.solver not in TORCHDIFFEQ
    return accelerated(sampler, [networks.generator, networks.moments], recorded=recorded, deterministic=deterministic)


def require_rollout(recipe: Recipe) -> None:
    """Check that the networks of a recipe can make its own rollout, before they are trained. The solver ``auto`` is chosen later.

    Raises:
        UserError: as :func:`sampler_of`; the message begins with a key of the recipe.
    """
    try:
        _require_possible(recipe.rollout, few_numbers_of(recipe), recipe.generator.objective, recipe.generator.followed_path)
    except UserError as error:
        raise UserError(f"rollout.{error}") from None


def few_numbers_of(recipe: Recipe) -> tuple[int, ...]:
    """The numbers of evaluations that networks of few evaluations make, a fine-tuned one included."""
    return (*recipe.few_numbers, recipe.fine_tune.nfe) if recipe.fine_tune.steps else recipe.few_numbers


def _require_possible(settings: Rollout, few: Collection[int], objective: ObjectiveName, path: PathName) -> None:
    """Raise a UserError unless the networks of few evaluations, or else the flow, can make samples with the settings of a recipe.

    ``few`` are the numbers of evaluations of the networks of few evaluations.
    """
    if objective == "none":
        return
    if settings.nfe in few:
        if settings.warmth != 1:
            raise UserError(f"warmth {settings.warmth:g}: the network for nfe {settings.nfe} is trained at full warmth only")
    elif objective == "crps":
        raise UserError(f"nfe {settings.nfe}: a generator of the objective crps makes one evaluation; set it to 1")
    elif settings.solver != "auto":
        try:
            require_possible(settings.solver, settings.grid_in_time, settings.nfe, path, settings.momentum)
        except UserError as error:
            hint = "; one evaluation needs a distilled network (generator.objective distil) or the solver euler" * (settings.nfe == 1)
            raise UserError(f"{error}{hint}") from None


def few_sampler(networks: Trained, network: UNet, nfe: int) -> Sampler:
    """The sampler of a network of few evaluations, with the objective, prior, path and noise fields of ``networks``.

    It makes equal steps at full warmth, by Euler's method if the network is not the flow itself, fine-tuned.
    """
    if networks.objective == "crps":
        return direct_sampler(network, networks.prior_of, networks.noise_fields)
    name = _of_tuned_flow(nfe) if networks.objective == "flow" else "euler"
    step = 1 / nfe if networks.objective in KNOW_STEP else None
    return generator_sampler(network, networks.prior_of, nfe, 1.0, uniform(steps_for(name, nfe)), solver(name), networks.path, step)


def _of_tuned_flow(nfe: int) -> str:
    """The solver of a flow that is fine-tuned for ``nfe`` evaluations."""
    return "euler" if nfe % 2 else "midpoint"


def noise_count_of(networks: Trained, settings: Rollout) -> int:
    """Noise fields of a sample. Without a flow one is needed, whatever its solver."""
    return 1 if settings.nfe in networks.few or networks.objective == "none" else settings.noise_count


def few_in_words(networks: Trained, nfe: int) -> str:
    """What makes ``nfe`` evaluations in place of the flow's generator, in words; empty if that does."""
    if networks.objective == "none":
        return "none; the moments network with noise from its past errors"
    if nfe not in networks.few:
        return ""
    if networks.objective == "flow":
        return f"{_of_tuned_flow(nfe)}, uniform times, with the fine-tuned generator"
    return f"none; the network of the objective {networks.objective} makes {nfe} evaluation{'s' * (nfe > 1)}"


def past_errors_sampler_of(networks: Trained, errors: Tensor, *, deterministic: bool = False) -> Sampler:
    """The sampler of the moments model without a generator, with noise from past errors. On a GPU it is accelerated.

    ``errors`` are those of :func:`wsdcast.weather.forecast.past_errors.past_errors`.
    """
    sampler = past_errors_sampler(frozen_prior(networks.moments), errors)
    return accelerated(sampler, [networks.moments], recorded=networks.ours, deterministic=deterministic)
