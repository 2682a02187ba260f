"""A prior with low-rank correlations, which the paper leaves as future work (section 7).

Its covariance is L L with the symmetric matrix L = D + V V^T, where D = diag(std) and the columns of V are ``rank`` predicted patterns.
L takes the place of std in Eqs. 2 and 3. The Woodbury identity gives its inverse and its determinant exactly, and only matrices of
(rank, rank) are factorised:

    L^-1  = D^-1 - D^-1 V K^-1 V^T D^-1,    K = 1 + V^T D^-1 V
    det L = det D det K
"""

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
    """Return the method with autocast switched off, so that it computes in the precision of the prior.

    Autocast would compute the products in bfloat16, and torch has no linear solvers for bfloat16.
    """

    @wraps(method)
    def exact(prior: CorrelatedPrior, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        with without_autocast(prior.mean):
            return method(prior, *args, **kwargs)

    return exact


@dataclass(frozen=True)
class CorrelatedPrior(InformedPrior):
    """The Gaussian N(mean, L L) with L = diag(std) + V V^T.

    A sample mean + L z has, besides independent noise of standard deviation ``std``, a random combination of a few patterns.

    Attributes:
        factors: the columns of V, (batch, rank, channel, ...); each is a pattern of the shape of the mean. They make the marginal standard
            deviation (:meth:`marginal_std`) at least ``std``.
    """

    factors: Tensor | None = None

    @_outside_autocast
    def normalise(self, x: Tensor) -> Tensor:
        """Return L^-1 (x - mean), in the place of Eq. 2."""
        scaled = (x - self.mean) / self.std
        capacitance, over_std = self._capacitance()
        # The matrix is symmetric and positive definite. `cholesky_ex` does not check that, so the host does not wait for the GPU.
        root = torch.linalg.cholesky_ex(capacitance).L
        weights = torch.cholesky_solve(_project(self._v, scaled)[..., None], root)[..., 0]
        return scaled - _combine(over_std, weights)

    @_outside_autocast
    def denormalise(self, x: Tensor) -> Tensor:
        """Return mean + L x, in the place of Eq. 3."""
        return x * self.std + _combine(self._v, _project(self._v, x)) + self.mean

    @_outside_autocast
    def log_prob(self, x: Tensor) -> Tensor:
        """Return the natural logarithm of the density of each sample, (batch,)."""
        # With z = L^-1 (x - mean), log N(x) = log N(D z; 0, D^2) - log det K: the diagonal prior accounts for det D.
        diagonal = InformedPrior(torch.zeros_like(self.mean), self.std)
        return diagonal.log_prob(self.normalise(x) * self.std) - self._log_determinant()

    def blended(self, warmth: Tensor) -> CorrelatedPrior:
        """Return the prior at a warmth, (batch,) or (1,): std is blended as in a diagonal prior, and V V^T is scaled.

        The scale of V V^T is 1 - blend(0, w). By Eq. 4 that is w^2, so no correlation is left at w = 0.
        """
        std = self.blend(self.std, per_sample(warmth, self.std))
        w = per_sample(warmth, self._v)
        return replace(self, std=std, factors=self._v * (1 - self.blend(torch.zeros_like(w), w)).sqrt())

    @_outside_autocast
    def marginal_std(self) -> Tensor:
        """Return the square root of the diagonal of L L, of the shape of the mean."""
        # L L = D^2 + D V V^T + V V^T D + V (V^T V) V^T.
        squares = (self._v**2).sum(dim=1)
        inner = self._v.flatten(2) @ self._v.flatten(2).transpose(1, 2)
        quadratic = torch.einsum("br...,brs,bs...->b...", self._v, inner, self._v)
        return (self.std**2 + 2 * self.std * squares + quadratic).sqrt()

    def features(self) -> Tensor:
        """Return mean, log(std) and the patterns, (batch, (2 + rank) channel, ...)."""
        return torch.cat([super().features(), self._v.flatten(1, 2)], dim=1)

    @property
    def _v(self) -> Tensor:
        assert self.factors is not None
        return self.factors

    def _log_determinant(self) -> Tensor:
        """Return log det K, (batch,)."""
        root = torch.linalg.cholesky_ex(self._capacitance()[0]).L
        return 2 * root.diagonal(dim1=1, dim2=2).log().sum(dim=1)

    def _capacitance(self) -> tuple[Tensor, Tensor]:
        """Return K = 1 + V^T D^-1 V, (batch, rank, rank), which is called the capacitance matrix, and D^-1 V."""
        over_std = self._v / self.std[:, None]
        inner = self._v.flatten(2) @ over_std.flatten(2).transpose(1, 2)
        return inner + torch.eye(inner.shape[1], dtype=inner.dtype, device=inner.device), over_std


def informed_prior(mean: Tensor, std: Tensor, *factors: Tensor, blend: Blend = warmth_blending) -> InformedPrior:
    """Return the prior with the predicted moments: a :class:`CorrelatedPrior` if there are factors, else an :class:`InformedPrior`."""
    return CorrelatedPrior(mean, std, blend, factors[0]) if factors else InformedPrior(mean, std, blend)


def _project(v: Tensor, x: Tensor) -> Tensor:
    """Return V^T x, (batch, rank)."""
    return (v.flatten(2) @ x.flatten(1)[:, :, None])[:, :, 0]


def _combine(v: Tensor, weights: Tensor) -> Tensor:
    """Return V weights, of the shape of the mean, for weights of (batch, rank)."""
    return (weights[:, None, :] @ v.flatten(2)).reshape(v.shape[0], *v.shape[2:])
