"""The surrogate against textbook formulas over coefficients, and what it makes of known losses."""

from typing import Any

import numpy as np
import pytest

from controller.samplers.choices import ChoiceGrid
from controller.samplers.probing import fill_losses, plan_probes, point_of
from controller.samplers.surrogate import AdditiveLoss, Link, Residual, choose_power, fit_link


def grid(units: int = 4) -> ChoiceGrid:
    axes: list[dict[str, tuple[Any, ...]]] = [
        {f"{unit}:keep": (4, 3, 2, 1), f"{unit}:format": ("fp32", "int8")} for unit in range(units)
    ]

    def costs(parameters: Any) -> list[float]:
        return [sum(parameters[f"{u}:keep"] * (1 + (parameters[f"{u}:format"] == "fp32")) for u in range(units))]

    return ChoiceGrid(axes, costs, costs=1)


class TestAdditiveLoss:
    def test_the_posterior_is_that_of_bayesian_regression(self) -> None:
        space = grid(3)
        model = AdditiveLoss(space)
        generator = np.random.default_rng(0)
        prior = generator.random(model.features) + 0.1
        points = generator.integers(space.counts, size=(12, 3))
        damage = model.design(points) @ (prior * 1.5) + 0.01
        model.fit(prior, points, damage, deviation=0.5, common=0.4, noise=0.1)
        floor = prior.mean() * 0.1
        covariance = np.diag((0.5 * prior + floor) ** 2) + 0.16 * np.outer(prior, prior)
        design = model.design(points)
        precision = np.diag((0.1 * np.maximum(damage, 0.5 * design @ prior) + floor) ** -2)
        posterior = np.linalg.inv(np.linalg.inv(covariance) + design.T @ precision @ design)
        mean = prior + posterior @ design.T @ precision @ (damage - design @ prior)
        assert model.mean_F == pytest.approx(mean)
        new = generator.integers(space.counts, size=(5, 3))
        expected = np.sqrt(np.diag(model.design(new) @ posterior @ model.design(new).T))
        assert model.predict(new)[1] == pytest.approx(expected)

    def test_a_common_factor_is_learned_from_few_trials(self) -> None:
        space = grid(6)
        model = AdditiveLoss(space)
        prior = np.linspace(0.1, 1.0, model.features)
        points = np.random.default_rng(0).integers(space.counts, size=(3, 6))
        truth = 2 * prior
        model.fit(prior, points, model.design(points) @ truth, deviation=0.1, common=1.0, noise=0.05)
        unseen = np.random.default_rng(1).integers(space.counts, size=(20, 6))
        assert model.mean(unseen) == pytest.approx(model.design(unseen) @ truth, rel=0.15)

    def test_losses_are_never_negative(self) -> None:
        space = grid(2)
        model = AdditiveLoss(space)
        prior = np.full(model.features, 0.2)
        points = np.random.default_rng(0).integers(1, space.counts, size=(10, 2))
        model.fit(prior, points, np.zeros(10), deviation=1.0, common=1.0, noise=0.1)
        assert model.table().min() >= 0

    def test_the_first_options_lose_nothing(self) -> None:
        model = AdditiveLoss(grid())
        model.fit(
            np.ones(model.features), np.zeros((0, 4), dtype=np.int64), np.zeros(0), deviation=1, common=0, noise=1
        )
        mean, spread = model.predict(np.zeros((1, 4), dtype=np.int64))
        assert mean == spread == pytest.approx([0.0])


class TestPower:
    @pytest.mark.parametrize("power", [1.0, 0.5, 0.25])
    def test_it_is_found_from_trials(self, power: float) -> None:
        generator = np.random.default_rng(0)
        design = (generator.random((40, 20)) < 0.3).astype(float)
        losses = generator.random(20) ** 3 * 0.01 + 1e-5
        assert choose_power(design, losses, (design @ losses**power) ** (1 / power)) == power

    def test_without_trials_it_is_the_usual_one(self) -> None:
        assert choose_power(np.zeros((0, 3)), np.ones(3), np.zeros(0)) == 0.5


class TestLink:
    def test_it_fits_what_it_made(self) -> None:
        truth = Link(dense=0.9, height=0.4, scale=0.3, power=2.0)
        loss = np.linspace(0, 1, 30)
        found = fit_link(loss, truth.quality(loss), dense=0.9, height=0.4, guess=0.5)
        assert found.quality(loss) == pytest.approx(truth.quality(loss), abs=0.03)

    def test_it_never_rises_and_stays_between_dense_and_guessing(self) -> None:
        link = Link(dense=0.9, height=0.4, scale=0.3, power=1.6)
        quality = link.quality(np.linspace(0, 50, 500))
        assert (np.diff(quality) <= 0).all()
        assert quality[0] == 0.9
        assert quality[-1] == pytest.approx(0.5)


class TestResidual:
    LINK = Link(dense=1.0, height=1.0, scale=1.0, power=1.0)
    HALF_WAY = 0.7

    def test_it_explains_what_it_has_seen_and_not_what_is_far(self) -> None:
        generator = np.random.default_rng(0)
        points = generator.integers(0, 4, size=(30, 10))
        errors = generator.normal(0, 0.05, 30)
        loss = np.full(30, self.HALF_WAY)
        model = Residual(points, errors, loss, self.LINK, noise=1e-3)
        mean, spread, _ = model.predict(points, loss)
        assert mean == pytest.approx(errors, abs=0.03)
        assert spread.max() < 0.03
        far = model.predict(np.full((1, 10), 9), loss[:1])
        assert far[2][0] > 0.9
        assert abs(far[0][0]) < 0.05

    def test_near_points_err_alike(self) -> None:
        points = np.array([[0] * 10, [1] * 10, [2] * 10])
        model = Residual(points, np.array([0.1, -0.1, 0.0]), np.full(3, self.HALF_WAY), self.LINK, noise=1e-3)
        near = np.array([[0] * 9 + [3]])
        assert model.predict(near, np.full(1, self.HALF_WAY))[0][0] > 0.01

    def test_what_moves_no_output_is_sure(self) -> None:
        points = np.random.default_rng(0).integers(0, 4, size=(20, 10))
        errors = np.random.default_rng(1).normal(0, 0.05, 20)
        model = Residual(points, errors, np.full(20, self.HALF_WAY), self.LINK, noise=1e-3)
        spread = model.prior(np.array([0.0, 1e-4, 1e-2, self.HALF_WAY]))
        assert (np.diff(spread) > 0).all()
        assert spread[0] < 0.01 * spread[-1]


class TestProbes:
    def test_the_ends_come_first_and_the_middle_next(self) -> None:
        space = grid()
        labels = AdditiveLoss(space).labels
        assert len(labels) == 4 * (3 + 1)
        planned = plan_probes(space, labels)
        assert len(planned) == len(labels)
        assert [label[2] for label in planned[:8]] == [3, 1] * 4

    def test_a_large_space_is_thinned(self) -> None:
        space = grid(50)
        planned = plan_probes(space, AdditiveLoss(space).labels, most=40)
        assert len(planned) <= 40
        assert max(label[0] for label in planned) > 40

    def test_a_probe_changes_one_parameter(self) -> None:
        space = grid()
        assert space.parameters(point_of(space, (2, 0, 3)))["2:keep"] == 1
        assert space.parameters(point_of(space, (2, 1, 1)))["2:format"] == "int8"
        assert np.count_nonzero(point_of(space, (2, 0, 3))) == 1

    def test_gaps_are_interpolated_and_units_without_probes_take_their_neighbours(self) -> None:
        space = grid(3)
        labels = AdditiveLoss(space).labels
        probed = {(0, 0, 1): 0.01, (0, 0, 3): 0.16, (0, 1, 1): 0.02}
        filled = dict(zip(labels, fill_losses(space, labels, probed), strict=True))
        assert filled[0, 0, 3] == pytest.approx(0.16)
        assert 0.01 < filled[0, 0, 2] < 0.16
        assert filled[2, 0, 3] == pytest.approx(0.16)
        assert filled[2, 1, 1] == pytest.approx(0.02)

    def test_without_any_probe_losses_rise_with_the_level(self) -> None:
        space = grid(2)
        labels = AdditiveLoss(space).labels
        filled = dict(zip(labels, fill_losses(space, labels, {}), strict=True))
        assert 0 < filled[0, 0, 1] < filled[0, 0, 2] < filled[0, 0, 3]
