"""What a policy loses, learned: losses of units that add up, a link from loss to quality, and what both miss.

Shape letters: N points, U units, F features (a level of one parameter of one unit), O options, T training points.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from controller.samplers.choices import ChoiceGrid, Options

Floats = npt.NDArray[np.float64]
_FLOOR = 1e-6
_LEAST_LEEWAY = 0.003


class AdditiveLoss:
    """A Bayesian linear model: the damage of a point is the sum of the damages of its units' levels.

    Every level of every parameter of every unit beside the first has a coefficient; a unit's option has the sum over
    its parameters. The coefficients have a normal prior: means from probes, deviations relative to the means, partly
    common to all (a probe's few examples may be easier than the rest). Noise grows with the damage, so small damages
    count by their own size. The posterior is computed over trials, never over pairs of coefficients, so wide spaces
    cost little.

    Args:
        grid: The space.

    Reference:
        Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 2.1; that losses of layers
        nearly add up: Frantar and Alistarh, SPDY, arXiv 2201.13096.
    """

    def __init__(self, grid: ChoiceGrid) -> None:
        self._grid = grid
        self.labels: list[tuple[int, int, int]] = []
        """(unit, axis, level) of each feature."""
        places: dict[tuple[int, int, int], int] = {}
        axes = max((len(unit) for unit in grid.axes), default=1)
        self._places = np.full((grid.units, grid.width, max(axes, 1)), -1)
        for unit, options in enumerate(grid.options):
            for number, option in enumerate(options):
                for axis, level in enumerate(option.levels):
                    if level == 0:
                        continue
                    label = (unit, axis, level)
                    if label not in places:
                        places[label] = len(self.labels)
                        self.labels.append(label)
                    self._places[unit, number, axis] = places[label]
        self.features = len(self.labels)
        self.mean_F = np.zeros(self.features)
        self._own_F, self._common_F = np.ones(self.features), np.zeros(self.features)
        self._design_TF = np.zeros((0, self.features))
        self._factor_TT = np.zeros((0, 0))

    def fit(
        self, prior_F: Floats, options_TU: Options, damage_T: Floats, *, deviation: float, common: float, noise: float
    ) -> None:
        """Learn from trials.

        Args:
            prior_F: Expected damage of every level, (F,), 0 or more.
            options_TU: Scored points.
            damage_T: Their damage, 0 or more.
            deviation: Standard deviation of each coefficient relative to its mean.
            common: Standard deviation of a factor common to all.
            noise: Standard deviation of an observation relative to its damage.
        """
        floor = max(float(np.mean(prior_F)) * 0.1, _FLOOR) if self.features else _FLOOR
        self._own_F = (deviation * prior_F + floor) ** 2
        self._common_F = common * prior_F
        self._design_TF = self.design(options_TU)
        self.mean_F = prior_F.copy()
        self._factor_TT = np.zeros((0, 0))
        if len(damage_T) == 0:
            return
        expected_T = self._design_TF @ prior_F
        scale_T = noise * np.maximum(damage_T, 0.5 * expected_T) + floor
        kernel_TT = self._covariance(self._design_TF, self._design_TF) + np.diag(scale_T**2)
        self._factor_TT = np.asarray(np.linalg.cholesky(kernel_TT), dtype=np.float64)
        weights_T = _solve(self._factor_TT, damage_T - expected_T)
        common_T = self._design_TF @ self._common_F
        update_F = self._own_F * (self._design_TF.T @ weights_T) + self._common_F * float(common_T @ weights_T)
        self.mean_F = prior_F + update_F

    def predict(self, options_NU: Options) -> tuple[Floats, Floats]:
        """Return the expected damage of points and its standard deviation, both (N,)."""
        design_NF = self.design(options_NU)
        mean_N = design_NF @ np.maximum(self.mean_F, 0.0)
        prior_N = (design_NF * self._own_F * design_NF).sum(axis=1) + (design_NF @ self._common_F) ** 2
        if len(self._factor_TT) == 0:
            return mean_N, np.sqrt(prior_N)
        explained_TN = _forward(self._factor_TT, self._covariance(self._design_TF, design_NF))
        return mean_N, np.sqrt(np.maximum(prior_N - (explained_TN**2).sum(axis=0), 0.0))

    def _covariance(self, first_NF: Floats, second_MF: Floats) -> Floats:
        common: Floats = np.outer(first_NF @ self._common_F, second_MF @ self._common_F)
        return (first_NF * self._own_F) @ second_MF.T + common

    def mean(self, options_NU: Options) -> Floats:
        """Return the expected damage of points, (N,)."""
        units = np.arange(self._grid.units)
        found: Floats = self.table()[units, options_NU].sum(axis=-1)
        return found

    def table(self) -> Floats:
        """Return the expected loss of every option, (U, O), 0 or more."""
        padded = np.append(np.maximum(self.mean_F, 0.0), 0.0)
        found: Floats = padded[self._places].sum(axis=-1)
        return found

    def design(self, options_NU: Options) -> Floats:
        """Return which features points have, (N, F)."""
        levels = self._places.shape[2] * self._grid.units
        places = self._places[np.arange(self._grid.units), options_NU].reshape(len(options_NU), levels)
        found = np.zeros((len(options_NU), self.features + 1))
        np.put_along_axis(found, np.where(places < 0, self.features, places), 1.0, axis=1)
        return found[:, :-1]


@dataclass(frozen=True, slots=True)
class Link:
    """Expected quality of a loss: dense - height * (1 - exp(-(loss / scale) ** power)); it never rises.

    Attributes:
        dense: Quality without any loss.
        height: Quality of the dense model above that of guessing, above 0.
        scale: Loss at which 63 % of the height are gone, above 0.
        power: How suddenly, above 0.
    """

    dense: float
    height: float
    scale: float
    power: float

    def quality(self, loss_N: Floats) -> Floats:
        """Return the expected quality, elementwise."""
        found: Floats = self.dense - self.height * -np.expm1(-((np.maximum(loss_N, 0) / self.scale) ** self.power))
        return found

    def spread(self, loss_N: Floats, deviation_N: Floats) -> Floats:
        """Return the standard deviation of the quality where that of the loss is given, elementwise."""
        low_N, high_N = np.maximum(loss_N - deviation_N, 0.0), loss_N + deviation_N
        found: Floats = 0.5 * (self.quality(low_N) - self.quality(high_N))
        return found

    def leeway(self, loss_N: Floats, least: float) -> Floats:
        """Return how freely quality varies at a loss, 0 to 1.

        Answers change sides as the root of how far outputs move, whether or not quality falls; the more where it is
        half-way between the dense model and guessing.

        Args:
            loss_N: Losses, (N,), 0 or more.
            least: Leeway where no quality is lost yet, as a share of that half-way, 0 to 1.
        """
        moved_N = np.sqrt(-np.expm1(-np.maximum(loss_N, 0.0) / self.scale))
        gone_N = (self.dense - self.quality(loss_N)) / self.height
        found: Floats = moved_N * (least + (1 - least) * np.clip(4 * gone_N * (1 - gone_N), 0.0, 1.0)) + _LEAST_LEEWAY
        return found


POWERS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18)
_USUAL_POWER = 0.5


def choose_power(design_TF: Floats, losses_F: Floats, loss_T: Floats) -> float:
    """Choose the power p under which damages add up: loss**p is nearly the sum of the units' losses**p.

    Errors of different units add as energies where they are independent (p = 1), as amplitudes where they point the
    same way (p = 1/2), and faster where units stand in for each other, so that each alone seems to be idle. The power
    chosen makes the ratio of measured to predicted loss vary least over the trials, and drives it towards one.

    Args:
        design_TF: Which levels each trial has.
        losses_F: Loss of every level alone.
        loss_T: Loss of the trials.
    """
    taken = loss_T > _FLOOR
    if not taken.any():
        return _USUAL_POWER
    errors = {}
    for power in POWERS:
        predicted = np.maximum(design_TF[taken] @ losses_F**power, _FLOOR) ** (1 / power)
        ratio = np.log(loss_T[taken]) - np.log(predicted)
        spread = float(np.sum((ratio - np.median(ratio)) ** 2)) + 0.25 * len(ratio) * float(np.median(ratio)) ** 2
        errors[power] = (spread + 4 * np.log(power / _USUAL_POWER) ** 2) / (len(ratio) + 4)
    return min(POWERS, key=lambda power: errors[power])


def fit_link(
    loss_N: Floats, quality_N: Floats, *, dense: float, height: float, guess: float, usual: float = 1.0
) -> Link:
    """Fit a link on a grid of scales and powers by least squares, drawn towards a guess while there is little data.

    Args:
        loss_N: Predicted losses, (N,).
        quality_N: Measured qualities, (N,).
        dense: Quality of the dense model.
        height: Quality above guessing, above 0.
        guess: Scale in absence of data, above 0.
        usual: Power in absence of data, above 0.
    """
    if len(loss_N) == 0:
        return Link(dense=dense, height=height, scale=guess, power=usual)
    scales = guess * np.geomspace(1 / 64, 64, 49)
    powers = np.linspace(0.8, 4.8, 11)
    ratio = np.maximum(loss_N, 0.0) / scales[:, None, None]
    fall = -np.expm1(-(ratio ** powers[:, None]))
    errors = ((dense - height * fall - quality_N) ** 2).mean(axis=-1)
    pull = 0.05 * height**2 / (1 + len(loss_N))
    errors = errors + pull * (np.log(scales / guess)[:, None] ** 2 + (powers - usual) ** 2)
    row, column = np.unravel_index(int(errors.argmin()), errors.shape)
    return Link(dense=dense, height=height, scale=float(scales[row]), power=float(powers[column]))


class Residual:
    """A Gaussian process over what additive damage and link miss: points that differ in few units err alike.

    The kernel is variance * leeway * leeway' * exp(-distance / length), the distance being the share of units whose
    options differ. Length, noise and the least leeway are those of a few with the largest marginal likelihood.

    Args:
        options_TU: Scored points.
        residual_T: Measured less expected quality.
        loss_T: Their expected loss.
        link: From loss to quality.
        noise: Standard deviation that is never explained, at least.

    Reference:
        Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), algorithm 2.1 and section 5.4.
    """

    _LENGTHS = (0.08, 0.2, 0.5, 1.25)
    _LEAST_LEEWAYS = (0.03, 0.1, 0.3, 1.0)
    _NOISES = (0.1, 0.4)

    def __init__(self, options_TU: Options, residual_T: Floats, loss_T: Floats, link: Link, *, noise: float) -> None:
        self._options_TU, self._loss_T, self._link = options_TU, loss_T, link
        distance_TT = _distance(options_TU, options_TU)
        best = float("-inf")
        for least in self._LEAST_LEEWAYS:
            leeway_T = link.leeway(loss_T, least)
            variance = float(np.mean((residual_T / leeway_T) ** 2)) + noise**2
            for length, share in itertools.product(self._LENGTHS, self._NOISES):
                kernel_TT = variance * np.outer(leeway_T, leeway_T) * np.exp(-distance_TT / length)
                own_T = (share * leeway_T) ** 2 * variance + noise**2
                kernel_TT[np.diag_indices_from(kernel_TT)] += own_T
                factor_TT: Floats = np.asarray(np.linalg.cholesky(kernel_TT), dtype=np.float64)
                half_T = _forward(factor_TT, residual_T)
                likelihood = -0.5 * float(half_T @ half_T) - float(np.log(np.diag(factor_TT)).sum())
                if likelihood > best:
                    best, self.variance, self._length, self._least = likelihood, variance, length, least
                    self._factor_TT, self._half_T = factor_TT, half_T
        self._weights_T = _backward(self._factor_TT, self._half_T)

    @property
    def beyond(self) -> float:
        """Standard deviation of the residual where outputs have moved and no quality is lost yet."""
        return 0.5 * float(np.sqrt(self.variance)) * self._least

    def prior(self, loss_N: Floats) -> Floats:
        """Return the standard deviation of the residual far from all that was scored, (N,)."""
        return float(np.sqrt(self.variance)) * self._link.leeway(loss_N, self._least)

    def predict(self, options_NU: Options, loss_N: Floats) -> tuple[Floats, Floats, Floats]:
        """Return expected residuals, their standard deviations and how much is unexplained (0 to 1), all (N,)."""
        leeway_N, leeway_T = (self._link.leeway(loss, self._least) for loss in (loss_N, self._loss_T))
        near_NT = np.exp(-_distance(options_NU, self._options_TU) / self._length)
        kernel_NT = self.variance * np.outer(leeway_N, leeway_T) * near_NT
        explained_N = (_forward(self._factor_TT, kernel_NT.T) ** 2).sum(axis=0)
        prior_N = self.variance * leeway_N**2
        variance_N = np.maximum(prior_N - explained_N, 0.0)
        return kernel_NT @ self._weights_T, np.sqrt(variance_N), np.sqrt(variance_N / prior_N)


def _distance(first_NU: Options, second_TU: Options) -> Floats:
    found: Floats = np.zeros((len(first_NU), len(second_TU)))
    for unit in range(first_NU.shape[1]):
        found += first_NU[:, unit, None] != second_TU[None, :, unit]
    found /= max(1, first_NU.shape[1])
    return found


def _forward(factor: Floats, right: Floats) -> Floats:
    found: Floats = solve_triangular(factor, right, lower=True, check_finite=False)
    return found


def _backward(factor: Floats, right: Floats) -> Floats:
    found: Floats = solve_triangular(factor, right, lower=True, trans="T", check_finite=False)
    return found


def _solve(factor: Floats, right: Floats) -> Floats:
    return _backward(factor, _forward(factor, right))
