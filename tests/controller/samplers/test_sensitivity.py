"""Sensitivities are slopes, weighted by the examples behind each score."""

import numpy as np

from controller.samplers.sensitivity import SensitivityEstimate


def test_it_is_the_weighted_slope_of_the_loss():
    generator = np.random.default_rng(0)
    saved = generator.random((200, 3))
    weights = generator.choice([0.0625, 0.25, 1.0], size=200)
    quality = 0.9 - saved @ [0.3, 0.0, 0.1] + generator.normal(0, 0.01, 200)
    estimate = SensitivityEstimate(3)
    for row, value, weight in zip(saved, quality, weights, strict=True):
        estimate.add(row, value, weight)
    slopes = []
    for unit in range(3):
        covariance = np.cov(saved[:, unit], quality, aweights=weights, ddof=0)
        slopes.append(max(0.0, -covariance[0, 1] / covariance[0, 0]))
    np.testing.assert_allclose(estimate.sensitivities(), np.array(slopes) / max(slopes), rtol=1e-9)
    assert estimate.sensitivities()[0] == 1.0


def test_it_is_zero_where_nothing_is_known_or_pruning_helps():
    estimate = SensitivityEstimate(2)
    assert estimate.sensitivities().tolist() == [0.0, 0.0]
    for saved, quality in [(0.0, 0.5), (1.0, 0.7)]:
        estimate.add(np.array([saved, 0.5]), quality, 1.0)
    assert estimate.sensitivities().tolist() == [0.0, 0.0]
