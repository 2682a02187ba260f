"""Scores of the networks during training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wsdcast.training import validation
from wsdcast.training.validation import ensemble_scores, flow_scores
from wsdcast.warmstart.prior import InformedPrior

COUNT = 40
CONTEXTS, TARGETS = torch.randn((COUNT, 8, 4, 6), generator=torch.Generator().manual_seed(0)).split((6, 2), dim=1)


class Samples:
    """Random samples, whose contexts have 144 numbers each."""

    shape = TARGETS.shape[1:]

    def __len__(self) -> int:
        return COUNT

    def context(self, indices: Tensor) -> Tensor:
        return CONTEXTS[indices]

    def target(self, indices: Tensor) -> Tensor:
        return TARGETS[indices]


@pytest.mark.parametrize(("most", "together"), [(1, {1}), (3 * 144, {3, 2}), (10**9, {32, 8})])
def test_scores_of_large_fields_are_those_of_whole_batches_in_smaller_parts(monkeypatch, most, together):
    """The batches of 40 samples have 32 and 8. The draws belong to the batch, so only the rounding of the means depends on the parts."""

    def scores() -> dict[str, float]:
        sizes.clear()

        def evaluated(x: Tensor, *_: Tensor) -> Tensor:
            sizes.add(len(x))
            return x[:, :2].sin()

        flow = flow_scores(evaluated, lambda context: InformedPrior(context[:, :2], context[:, 2:4].exp()), Samples())
        return flow | ensemble_scores(lambda context, noise: evaluated(context + 1) + noise, Samples(), torch.rand(4, 1))

    sizes: set[int] = set()
    torch.manual_seed(0)
    whole = scores()
    assert sizes == {32, 8}
    monkeypatch.setattr(validation, "MOST_NUMBERS", most)
    torch.manual_seed(0)
    assert scores() == pytest.approx(whole, rel=1e-5)
    assert sizes == together
