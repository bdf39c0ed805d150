"""Gradients of the calibration examples against ones taken example by example, and exactly."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from evaluators.quality import StackedCalls, stack_calls
from search_spaces.units import Unit
from workers.calibrate import Calibration, CalibrationError
from workers.calibrate_gradients import collect_fisher, collect_taylor
from workers.data import load_splits
from workers.model import LoadedModel, load_model


@pytest.fixture(scope="module", params=["tiny_text", "tiny_image"])
def job(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def loaded(job: Any) -> LoadedModel:
    return load_model(job.model)


@pytest.fixture(scope="module")
def examples(job: Any, loaded: LoadedModel) -> Any:
    return load_splits(job.data, loaded.task, seed=0).calibration[:24]


@pytest.fixture(scope="module")
def units(loaded: LoadedModel) -> Sequence[Unit]:
    return [unit for unit in loaded.structure.units if unit.producers]


def _targets(loaded: LoadedModel, examples: Any, calls: Sequence[StackedCalls]) -> list[torch.Tensor]:
    return [loaded.task.targets([examples[row] for row in call.rows]) for call in calls]


def _naive_taylor(loaded: LoadedModel, unit: Unit, examples: Any) -> torch.Tensor:
    """|sum of w dL/dw| over the columns of each group, with one backward pass an example."""
    consumer = loaded.model.get_submodule(unit.consumer)
    total = torch.zeros(unit.groups, dtype=torch.float64)
    for example in examples:
        weight = consumer.weight.detach().clone().requires_grad_()
        parameters = {**dict(loaded.model.named_parameters()), f"{unit.consumer}.weight": weight}
        output = torch.func.functional_call(loaded.model, parameters, (), loaded.task.collate([example]))
        loss = torch.nn.functional.cross_entropy(output.logits, torch.tensor([example.label]))
        (gradient,) = torch.autograd.grad(loss, weight)
        total += (weight * gradient).detach().double().sum(0).view(unit.groups, -1).sum(1).abs()
    return total / len(examples)


@pytest.mark.parametrize("batch", [1, 5])
def test_taylor_is_that_of_single_examples(
    loaded: LoadedModel, units: Sequence[Unit], examples: Any, batch: int
) -> None:
    calls = stack_calls(loaded.task, examples, batch=batch)
    found = collect_taylor(loaded.model, units, calls, _targets(loaded, examples, calls))
    for unit in units:
        naive = _naive_taylor(loaded, unit, examples)
        torch.testing.assert_close(found[unit.name], naive, rtol=1e-3, atol=1e-6)


def test_taylor_without_labels_takes_the_models_own(loaded: LoadedModel, units: Sequence[Unit], examples: Any) -> None:
    calls = stack_calls(loaded.task, examples, batch=1)
    with torch.no_grad():
        own = [loaded.model(**call.inputs).logits.argmax(-1) for call in calls]
    found = collect_taylor(loaded.model, units, calls, None)
    expected = collect_taylor(loaded.model, units, calls, own)
    assert all(found[unit.name].equal(expected[unit.name]) for unit in units)


def _naive_fisher(loaded: LoadedModel, unit: Unit, examples: Any) -> torch.Tensor:
    """J^T (diag(p) - p p^T) J summed over the positions of the unit's output, from the whole Jacobian."""
    consumer = loaded.model.get_submodule(unit.consumer)
    total = torch.zeros(unit.out_features, unit.out_features, dtype=torch.float64)
    for example in examples:
        inputs = loaded.task.collate([example])
        seen: list[torch.Tensor] = []
        handle = consumer.register_forward_hook(lambda *arguments, seen=seen: seen.append(arguments[2].detach()))
        loaded.model(**inputs)
        handle.remove()

        def logits(shift: torch.Tensor, inputs: Any = inputs) -> torch.Tensor:
            handle = consumer.register_forward_hook(lambda *arguments: arguments[2] + shift)
            found = loaded.model(**inputs).logits[0]
            handle.remove()
            return found

        zero = torch.zeros_like(seen[0])
        jacobian_CSO = torch.autograd.functional.jacobian(logits, zero).flatten(1, -2).double()
        share_C = logits(zero).softmax(-1).double()
        metric_CC = torch.diag(share_C) - torch.outer(share_C, share_C)
        total += torch.einsum("cso,cd,dsp->op", jacobian_CSO, metric_CC, jacobian_CSO)
    return total / total.diagonal().mean()


def test_signs_average_to_the_fisher_metric(loaded: LoadedModel, units: Sequence[Unit], examples: Any) -> None:
    calls = stack_calls(loaded.task, examples[:6], batch=1)
    units = units[-2:]
    draws = [collect_fisher(loaded.model, units, calls, seed=seed) for seed in range(150)]
    for unit in units:
        exact = _naive_fisher(loaded, unit, examples[:6])
        mean = torch.stack([draw[unit.name] for draw in draws]).mean(0)
        assert float((mean - exact).norm() / exact.norm()) < 0.2
        assert float((draws[0][unit.name] - exact).norm() / exact.norm()) < 1.5


def test_fisher_is_a_metric_and_does_not_depend_on_which_units_share_a_pass(
    loaded: LoadedModel, units: Sequence[Unit], examples: Any
) -> None:
    calls = stack_calls(loaded.task, examples, batch=1)
    found = collect_fisher(loaded.model, units, calls)
    (alone,) = collect_fisher(loaded.model, units[:1], calls).values()
    torch.testing.assert_close(found[units[0].name], alone, rtol=1e-6, atol=1e-9)
    for unit in units:
        metric = found[unit.name]
        assert metric.shape == (unit.out_features, unit.out_features)
        assert float(metric.diagonal().mean()) == pytest.approx(1)
        assert float(torch.linalg.eigvalsh(metric).min()) > -1e-6


def test_the_model_is_left_as_it_was(loaded: LoadedModel, units: Sequence[Unit], examples: Any) -> None:
    calls = stack_calls(loaded.task, examples, batch=1)
    collect_fisher(loaded.model, units, calls)
    collect_taylor(loaded.model, units, calls, None)
    for module in loaded.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(p.grad is None and not p.requires_grad for p in loaded.model.parameters())


def test_a_unit_that_answers_do_not_depend_on_counts_all_directions_alike(
    job: Any, units: Sequence[Unit], examples: Any
) -> None:
    cut = load_model(job.model)
    cut.model.classifier.weight.zero_()
    calls = stack_calls(cut.task, examples, batch=1)
    for metric in collect_fisher(cut.model, units, calls).values():
        assert metric.equal(torch.eye(len(metric), dtype=torch.float64))


def test_gradients_that_are_not_finite_name_the_unit(job: Any, units: Sequence[Unit], examples: Any) -> None:
    broken = load_model(job.model)
    broken.model.classifier.weight[0, 0] = float("nan")
    calls = stack_calls(broken.task, examples, batch=1)
    with pytest.raises(CalibrationError, match=r"unit layer\.0\.attention must be finite"):
        collect_fisher(broken.model, units, calls)
    with pytest.raises(CalibrationError, match=r"unit layer\.0\.attention must be finite"):
        collect_taylor(broken.model, units, calls, None)


def test_calibration_hands_them_out(loaded: LoadedModel, units: Sequence[Unit], examples: Any) -> None:
    calls = stack_calls(loaded.task, examples, batch=1)
    targets = _targets(loaded, examples, calls)
    passes: list[int] = []

    def model() -> torch.nn.Module:
        passes.append(1)
        return loaded.model

    calibration = Calibration(units, calls, model, targets=targets)
    expected = collect_fisher(loaded.model, units, calls), collect_taylor(loaded.model, units, calls, targets)
    for unit in units:
        assert calibration.fisher(unit).equal(expected[0][unit.name])
        assert calibration.taylor(unit).equal(expected[1][unit.name])
    # One for the losses, and one for the metrics of each kind of unit.
    assert len(passes) == 3
    assert calibration.digest != Calibration(units, calls, model).digest
