"""Schedules by hand-made tables."""

import pytest

from workers.recovery.config import QuantizationMode, RecoveryConfig
from workers.recovery.schedule import learning_rate, loss_weights, weight_bits


@pytest.mark.parametrize(
    ("progress", "task", "temperature"), [(0, 0, 4), (0.2, 0, 3.4), (0.25, 0, 3.25), (0.625, 0.4, 2.125), (1, 0.8, 1)]
)
def test_distillation_comes_first_and_labels_later(progress: float, task: float, temperature: float) -> None:
    config = RecoveryConfig(alpha=0.8, beta=2.0, temperature=4.0, last_temperature=1.0, labels_from=0.25)
    found = loss_weights(config, progress)
    assert found.task == pytest.approx(task)
    assert found.temperature == pytest.approx(temperature)
    assert (found.distillation, found.quantization) == (2.0, 0.01)


def test_labels_count_from_the_start_where_nothing_else_does() -> None:
    assert loss_weights(RecoveryConfig(alpha=0.8, beta=0), 0).task == 0.8


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(1.0, step / 100) for step in range(101)]
    assert 0 < rates[0] < 0.2
    assert rates[10] == max(rates) == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)


@pytest.mark.parametrize(
    ("mode", "target", "least", "expected"),
    [
        (QuantizationMode.JOINT, 4, 4, [4, 4, 4, 4, 4]),
        (QuantizationMode.OFF, 4, 4, [None] * 5),
        (QuantizationMode.STAGED, 8, 4, [None, None, 8, 8, 8]),
        (QuantizationMode.PROGRESSIVE, 4, 4, [16, 8, 4, 4, 4]),
        (QuantizationMode.PROGRESSIVE, 8, 4, [16, 8, 8, 8, 8]),
        (QuantizationMode.PROGRESSIVE, 8, 8, [16, 16, 8, 8, 8]),
    ],
)
def test_bits_fall_to_those_of_the_format(
    mode: QuantizationMode, target: int, least: int, expected: list[int | None]
) -> None:
    moments = (0, 0.25, 0.5, 0.75, 0.99)
    assert [weight_bits(mode, at, target_bits=target, least_bits=least) for at in moments] == expected
