"""Losses beside naive implementations, an example at a time."""

import math

import pytest
import torch

from workers.recovery.losses import distillation_loss, hidden_loss, quantization_loss, scored, task_loss


def _softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation_is_the_divergence_of_softened_answers(temperature: float) -> None:
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for mine, wanted in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = _softmax(wanted, temperature), _softmax(mine, temperature)
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 6
    found = distillation_loss(student, teacher, temperature=temperature)
    assert float(found) == pytest.approx(temperature**2 * expected, rel=1e-5)


def test_distillation_of_equal_answers_is_zero() -> None:
    logits = torch.randn(5, 3)
    assert float(distillation_loss(logits, logits.clone(), temperature=3.0)) == pytest.approx(0, abs=1e-6)


def test_task_loss_counts_scored_targets_alone() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([[1, -100, 4], [0, 2, -100]])
    logits_TC, targets_T = scored(logits, targets)
    assert targets_T.tolist() == [1, 4, 0, 2]
    chosen = [(0, 0, 1), (0, 2, 4), (1, 0, 0), (1, 1, 2)]
    expected = -sum(math.log(_softmax(logits[row, place].tolist(), 1)[target]) for row, place, target in chosen) / 4
    assert float(task_loss(logits_TC, targets_T)) == pytest.approx(expected, rel=1e-5)


def test_hidden_states_of_padding_do_not_count() -> None:
    generator = torch.Generator().manual_seed(2)
    student, teacher = torch.randn(2, 2, 3, 4, generator=generator).unbind(0)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    error = power = 0.0
    for row, place in ((0, 0), (0, 1), (1, 0)):
        for feature in range(4):
            error += float(student[row, place, feature] - teacher[row, place, feature]) ** 2
            power += float(teacher[row, place, feature]) ** 2
    found = hidden_loss([student, teacher], [teacher, teacher], mask)
    assert float(found) == pytest.approx(error / power / 2, rel=1e-5)


def test_hidden_states_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="set hidden: 0"):
        hidden_loss([torch.zeros(1, 2, 3)], [torch.zeros(1, 2, 4)], None)


def test_quantization_loss_draws_weights_to_their_codes() -> None:
    weight = torch.tensor([[0.9, 2.1]], requires_grad=True)
    rounded = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = quantization_loss([(weight, rounded)])
    assert float(loss.detach()) == pytest.approx((0.01 + 0.01) / (0.81 + 4.41), rel=1e-5)
    loss.backward()
    assert rounded.grad is None
    assert weight.grad is not None
    assert weight.grad.sign().tolist() == [[-1, 1]]
