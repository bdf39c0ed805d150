import numpy as np
import pytest

from evaluators.latency.correction import Correction, fit_affine, fit_correction, fit_scale, leave_one_out


def test_a_scale_alone_is_found_exactly() -> None:
    fit = fit_correction([1.0, 2.0, 4.0], [1.25, 2.5, 5.0])
    assert fit.scale == pytest.approx(1.25)
    assert fit.overhead_ms == 0
    assert fit.max_error_pct == pytest.approx(0, abs=1e-9)
    assert fit.models == 3


def test_an_overhead_is_found_exactly() -> None:
    predicted = [1.0, 2.0, 3.0, 5.0, 8.0]
    fit = fit_correction(predicted, [0.9 * p + 0.4 for p in predicted])
    assert (fit.scale, fit.overhead_ms) == (pytest.approx(0.9), pytest.approx(0.4))
    assert fit.max_error_pct == pytest.approx(0, abs=1e-9)


def test_the_coefficients_solve_the_normal_equations() -> None:
    generator = np.random.default_rng(0)
    predicted = generator.uniform(1, 10, 12)
    measured = (1.1 * predicted + 0.8) * generator.normal(1, 0.02, 12)
    weight = 1 / measured**2
    matrix = np.array(
        [[(weight * predicted**2).sum(), (weight * predicted).sum()], [(weight * predicted).sum(), weight.sum()]]
    )
    vector = np.array([(weight * predicted * measured).sum(), (weight * measured).sum()])
    assert fit_affine(predicted, measured) == pytest.approx(tuple(np.linalg.solve(matrix, vector)))
    scale, _ = fit_scale(predicted, measured)
    assert scale == pytest.approx(vector[0] / matrix[0, 0])


def test_a_negative_overhead_is_left_out() -> None:
    predicted = np.array([2.0, 3.0, 4.0, 6.0])
    measured = predicted - 1
    assert fit_affine(predicted, measured) == fit_scale(predicted, measured)


def test_equal_predictions_give_a_scale() -> None:
    predicted, measured = np.full(4, 2.0), np.array([2.0, 2.2, 1.8, 2.1])
    assert fit_affine(predicted, measured) == fit_scale(predicted, measured)


def test_each_model_is_predicted_from_the_others() -> None:
    errors = leave_one_out(np.array([1.0, 1.0]), np.array([1.0, 2.0]), affine=False)
    # Fitted on the second alone the scale is 2, so the first is 100 % off; the other way round 50 %.
    np.testing.assert_allclose(errors, [100, 50])


def test_the_reported_error_is_that_of_left_out_models() -> None:
    predicted, measured = [1.0, 2.0, 3.0], [1.0, 2.2, 2.7]
    errors = leave_one_out(np.array(predicted), np.array(measured), affine=False)
    fit = fit_correction(predicted, measured)
    assert (fit.median_error_pct, fit.max_error_pct) == (pytest.approx(np.median(errors)), pytest.approx(errors.max()))


def test_the_interval_holds_the_measured_times_within_the_error() -> None:
    fit = Correction(scale=1, overhead_ms=0, models=4, median_error_pct=2, max_error_pct=25)
    assert fit.interval(10.0) == (pytest.approx(8), pytest.approx(10 / 0.75))


@pytest.mark.parametrize(
    ("predicted", "measured", "message"),
    [
        ([1.0], [1.0], "two or more models"),
        ([1.0, 2.0], [1.0], "two or more models"),
        ([1.0, float("nan")], [1.0, 2.0], "finite and above 0"),
        ([1.0, 2.0], [0.0, 2.0], "finite and above 0"),
    ],
)
def test_bad_measurements_are_refused(predicted: list[float], measured: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_correction(predicted, measured)
