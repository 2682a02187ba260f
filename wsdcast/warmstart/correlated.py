"""A prior with low-rank correlations, which the paper leaves as future work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor

from wsdcast.runs.devices import without_autocast
from wsdcast.warmstart.prior import Blend, InformedPrior, per_sample, warmth_blending

Arguments = ParamSpec("Arguments")


def _outside_autocast(
    method: Callable[Concatenate[CorrelatedPrior, Arguments], Tensor],
) -> Callable[Concatenate[CorrelatedPrior, Arguments], Tensor]:
    """The same method in the precision of the prior: autocast would do its products in bfloat16, for which torch solves no equations."""

    @wraps(method)
    def exact(prior: CorrelatedPrior, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        with without_autocast(prior.mean):
            return method(prior, *args, **kwargs)

    return exact


@dataclass(frozen=True)
class CorrelatedPrior(InformedPrior):
    """N(mean, L L) with the symmetric root L = diag(std) + V V^T: a few patterns that vary together, beside independent noise.

    Attributes:
        factors: the columns of V, (batch, rank, channel, ...), each a pattern of the shape of the mean. The marginal standard deviation
            is at least ``std`` (:meth:`marginal_std`).
    """

    factors: Tensor | None = None

    @_outside_autocast
    def normalise(self, x: Tensor) -> Tensor:
        """L^-1 (x - mean) by the Woodbury identity: L^-1 = D^-1 - D^-1 V (1 + V^T D^-1 V)^-1 V^T D^-1."""
        scaled = (x - self.mean) / self.std
        capacitance, over_std = self._capacitance()
        # Symmetric and positive definite. `cholesky_ex` does not stop the host to ask a GPU whether it is.
        root = torch.linalg.cholesky_ex(capacitance).L
        weights = torch.cholesky_solve(_project(self._v, scaled)[..., None], root)[..., 0]
        return scaled - _combine(over_std, weights)

    @_outside_autocast
    def denormalise(self, x: Tensor) -> Tensor:
        """Mean + L x."""
        return x * self.std + _combine(self._v, _project(self._v, x)) + self.mean

    @_outside_autocast
    def log_prob(self, x: Tensor) -> Tensor:
        """As for a diagonal prior, with det L = det D det(1 + V^T D^-1 V)."""
        diagonal = InformedPrior(torch.zeros_like(self.mean), self.std)
        # The density of D z is that of the diagonal prior; the other factor of the determinant is what the patterns add.
        return diagonal.log_prob(self.normalise(x) * self.std) - self._log_determinant()

    def blended(self, warmth: Tensor) -> CorrelatedPrior:
        """Std is blended as in a diagonal prior; V V^T keeps the share that the blend leaves of a std near 0: by Eq. 4 w^2."""
        std = self.blend(self.std, per_sample(warmth, self.std))
        w = per_sample(warmth, self._v)
        return replace(self, std=std, factors=self._v * (1 - self.blend(torch.zeros_like(w), w)).sqrt())

    @_outside_autocast
    def marginal_std(self) -> Tensor:
        """The root of the diagonal of L L."""
        along = (self._v**2).sum(dim=1)
        inner = self._v.flatten(2) @ self._v.flatten(2).transpose(1, 2)
        quadratic = torch.einsum("br...,brs,bs...->b...", self._v, inner, self._v)
        return (self.std**2 + 2 * self.std * along + quadratic).sqrt()

    def features(self) -> Tensor:
        """Mean, logarithm of std and the patterns, (batch, (2 + rank) channel, ...)."""
        return torch.cat([super().features(), self._v.flatten(1, 2)], dim=1)

    @property
    def _v(self) -> Tensor:
        assert self.factors is not None
        return self.factors

    def _log_determinant(self) -> Tensor:
        """Of 1 + V^T D^-1 V, (batch,)."""
        root = torch.linalg.cholesky_ex(self._capacitance()[0]).L
        return 2 * root.diagonal(dim1=1, dim2=2).log().sum(dim=1)

    def _capacitance(self) -> tuple[Tensor, Tensor]:
        """1 + V^T D^-1 V, (batch, rank, rank), and D^-1 V."""
        over_std = self._v / self.std[:, None]
        inner = self._v.flatten(2) @ over_std.flatten(2).transpose(1, 2)
        return inner + torch.eye(inner.shape[1], dtype=inner.dtype, device=inner.device), over_std


def informed_prior(mean: Tensor, std: Tensor, *factors: Tensor, blend: Blend = warmth_blending) -> InformedPrior:
    """The prior that predicted moments describe, with correlations if they come with factors."""
    return CorrelatedPrior(mean, std, blend, factors[0]) if factors else InformedPrior(mean, std, blend)


def _project(v: Tensor, x: Tensor) -> Tensor:
    """V^T x, (batch, rank)."""
    return (v.flatten(2) @ x.flatten(1)[:, :, None])[:, :, 0]


def _combine(v: Tensor, weights: Tensor) -> Tensor:
    """V weights, in the shape of the mean."""
    return (weights[:, None, :] @ v.flatten(2)).reshape(v.shape[0], *v.shape[2:])
