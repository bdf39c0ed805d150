"""Traces of the Fisher information, against the exact matrix of a small network."""

import pytest
import torch
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from search_spaces.units import Producer, Unit, UnitKind
from workers.calibrate import CalibrationError
from workers.curvature import fisher_traces


class Answer:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Small(nn.Module):
    """Two layers of a unit and a classifier of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.head(x + self.second(torch.tanh(self.first(x)))))


UNIT = Unit(
    name="unit",
    kind=UnitKind.FEED_FORWARD,
    groups=5,
    producers=(Producer(layer="first", rows_per_group=1),),
    consumer="second",
    columns_per_group=1,
    in_features=4,
    out_features=4,
)


def exact_trace(model: Small, inputs_BK: Tensor) -> float:
    """Mean over examples of the sum over weights of J^T (diag(p) - p p^T) J."""
    weights = [model.first.weight, model.second.weight]
    total = 0.0
    for row_K in inputs_BK:
        logits_C = model(row_K[None]).logits[0]
        share_C = logits_C.softmax(-1).detach()
        jacobian_CP = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(logit, weights, retain_graph=True)])
                for logit in logits_C
            ]
        )
        metric_CC = share_C.diag() - share_C.outer(share_C)
        total += float((jacobian_CP * (metric_CC @ jacobian_CP)).sum())
    return total / len(inputs_BK)


def test_the_estimate_has_the_exact_trace_as_its_mean() -> None:
    torch.manual_seed(0)
    model, inputs_BK = Small(), torch.randn(6, 4)
    calls = [
        StackedCalls(inputs={"x": inputs_BK[:4]}, rows=(0, 1, 2, 3), examples_per_call=1),
        StackedCalls(inputs={"x": inputs_BK[4:]}, rows=(4, 5), examples_per_call=1),
    ]
    found = [fisher_traces(model, [UNIT], calls, seed=seed)["unit"] for seed in range(300)]
    assert sum(f.trace for f in found) / len(found) == pytest.approx(exact_trace(model, inputs_BK), rel=0.05)
    assert found[0].weights == 40
    assert fisher_traces(model, [UNIT], calls, seed=1) == {"unit": found[1]}


def test_weights_that_are_not_finite_are_refused() -> None:
    model = Small()
    with torch.no_grad():
        model.second.weight[0, 0] = float("nan")
    calls = [StackedCalls(inputs={"x": torch.ones(1, 4)}, rows=(0,), examples_per_call=1)]
    with pytest.raises(CalibrationError, match="gradients of unit unit must be finite; got nan"):
        fisher_traces(model, [UNIT], calls)
