import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from evaluators.latency.correction import CONFIDENCE, Correction, ModelError
from evaluators.latency.fitting import (
    FORMS,
    RIDGE,
    Form,
    MeasuredModel,
    fit_correction,
    left_out,
    solve,
)
from evaluators.latency.workload import Operator, OperatorKind

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
LINEAR = Operator.of(OperatorKind.LINEAR, format="fp32", tokens=4, in_features=8, out_features=8)
LINEAR_W4 = Operator.of(OperatorKind.LINEAR, format="w4", tokens=4, in_features=8, out_features=8)
CORE = Operator.of(OperatorKind.ATTENTION_CORE, batch=1, sequence=4, heads=2, queries=2, head_dim=4)
NORM = Operator.of(OperatorKind.LAYER_NORM, tokens=4, features=8)
QUANTIZE = Operator.of(OperatorKind.QUANTIZE, tokens=4, features=8)


def model(measured_ms: float, **work: tuple[int, float]) -> MeasuredModel:
    operators = {"linear": LINEAR, "linear_w4": LINEAR_W4, "core": CORE, "norm": NORM, "quantize": QUANTIZE}
    return MeasuredModel(
        name="m", work=tuple((operators[name], *entry) for name, entry in work.items()), measured_ms=measured_ms
    )


def whole(measured_ms: float, sum_ms: float) -> MeasuredModel:
    return model(measured_ms, linear=(1, sum_ms))


def models_of(count: int, seed: int = 0, noise: float = 0.0, **truth: object) -> list[MeasuredModel]:
    """Models whose times follow from a correction; with scales by format, they have products of two formats."""
    generator = np.random.default_rng(seed)
    fit = Correction(
        **{"scale": 1.0, "overhead_ms": 0.0, "models": 2, "median_error_pct": 0, "max_error_pct": 0} | truth
    )
    found = []
    for _ in range(count):
        work = ((LINEAR, int(generator.integers(1, 40)), 0.3), (NORM, int(generator.integers(1, 13)), 0.1))
        work = (*work, (QUANTIZE, int(generator.integers(0, 30)), 0.02), (CORE, int(generator.integers(0, 12)), 0.2))
        if fit.format_scales:
            work = (*work, (LINEAR_W4, int(generator.integers(0, 40)), 0.2))
        time_ms = fit.overhead_ms + sum(count * fit.operator_ms(o, ms) for o, count, ms in work)
        found.append(MeasuredModel(name="m", work=work, measured_ms=float(time_ms * generator.normal(1, noise))))
    return found


def test_a_scale_alone_is_found_exactly() -> None:
    fit = fit_correction([whole(1.25, 1), whole(2.5, 2), whole(5.0, 4)])
    assert fit.scale == pytest.approx(1.25)
    assert (fit.other_scale, fit.operator_overhead_ms, fit.pair_overhead_ms, fit.overhead_ms) == (None, 0, 0, 0)
    assert fit.max_error_pct == pytest.approx(0, abs=1e-9)
    assert fit.models == 3


@pytest.mark.parametrize(
    "truth",
    [
        {"overhead_ms": 0.8},
        {"other_scale": 2.0},
        {"attention_scale": 1.6},
        {"other_scale": 0.7, "attention_scale": 1.6, "overhead_ms": 0.2},
        {"pair_overhead_ms": 0.1},
        {"operator_overhead_ms": 0.05, "overhead_ms": 0.3},
        {"scale": 1.3, "pair_overhead_ms": 0.06, "overhead_ms": 0.5},
        {"format_scales": {"fp32": 1.4, "w4": 0.8}, "other_scale": 1.1},
        {"format_scales": {"fp32": 0.9, "w4": 1.5}, "other_scale": 2.0, "overhead_ms": 0.4},
    ],
)
def test_what_times_are_made_of_is_found(truth: dict[str, object]) -> None:
    fit = fit_correction(models_of(12, **truth))
    assert fit.median_error_pct < 1
    unseen = models_of(30, seed=1, **truth)
    errors = [fit.overhead_ms + sum(n * fit.operator_ms(o, ms) for o, n, ms in m.work) - m.measured_ms for m in unseen]
    assert np.abs(errors / np.array([m.measured_ms for m in unseen])).max() < 0.02


def test_noise_alone_gets_no_coefficients_of_its_own() -> None:
    for seed in range(5):
        fit = fit_correction(models_of(10, seed=seed, noise=0.01))
        assert fit.scale == pytest.approx(1, abs=0.03)
        assert fit.median_error_pct < 3


def test_few_models_get_few_coefficients() -> None:
    fit = fit_correction(models_of(3, pair_overhead_ms=0.2))
    assert (fit.other_scale, fit.operator_overhead_ms, fit.pair_overhead_ms, fit.overhead_ms) == (None, 0, 0, 0)


def test_equal_models_give_a_scale() -> None:
    fit = fit_correction([whole(t, 2.0) for t in (2.0, 2.2, 1.8, 2.1, 2.0, 2.0, 2.0)])
    assert fit.scale == pytest.approx(1, abs=0.03)
    assert fit.operator_overhead_ms == 0


@pytest.mark.parametrize("form", FORMS)
def test_the_coefficients_minimise_the_squared_errors_with_the_pull(form: Form) -> None:
    """Against a general minimiser. Columns: products in two formats, attention, others, counts, call."""
    generator = np.random.default_rng(2)
    design = np.column_stack([*generator.uniform(1, 5, (4, 9)), *generator.integers(1, 20, (2, 9)), np.ones(9)])
    measured = design @ np.array([1.2, 1.0, 0.9, 0.8, 0.05, 0.1, 0.3]) * generator.normal(1, 0.1, 9)
    share = design / measured[:, None]
    total = share[:, :4].sum(axis=1)
    common = total.sum() / (total @ total)
    # Which coefficient each column of times has.
    kinds = {"format one": 0, "format two": 1 if form.formats else 0}
    kinds["others"] = max(kinds.values()) + form.others
    kinds["attention"] = max(kinds.values()) + 1 if form.attention else kinds["others"]
    of_column = [kinds[kind] for kind in ("format one", "format two", "attention", "others")]
    scales = max(of_column) + 1

    def spread(free: np.ndarray) -> np.ndarray:
        full = np.zeros(7)
        full[:4] = [free[number] for number in of_column]
        full[list(form.overheads)] = free[scales:]
        return full

    def loss(free: np.ndarray) -> float:
        full = spread(free)
        scaled = [sum(share[:, column] for column in range(4) if of_column[column] == n) for n in range(scales)]
        pulls = [column.mean() * (x - common) for column, x in zip(scaled, free, strict=False)]
        pulls += [share[:, t].mean() * full[t] for t in form.overheads]
        return float(((share @ full - 1) ** 2).sum() + RIDGE * len(measured) * np.square(pulls).sum())

    size = form.size(formats=2)
    best = minimize(loss, np.full(size, 0.1), bounds=[(0, None)] * size, method="L-BFGS-B", options={"ftol": 1e-15})
    got = solve(form, design, measured)
    free = [*(got[of_column.index(number)] for number in range(scales)), *got[list(form.overheads)]]
    assert loss(np.array(free)) <= best.fun * (1 + 1e-6)
    np.testing.assert_allclose(spread(np.array(free)), got)


def test_a_format_that_no_other_model_has_takes_the_common_scale() -> None:
    fit = Form(formats=True, others=True)
    design = np.array([[1.0, 0, 0, 1, 0, 0, 1], [2.0, 0, 0, 1, 0, 0, 1], [1.0, 0, 0, 3, 0, 0, 1]])
    measured = 2 * design[:, :4].sum(axis=1)
    np.testing.assert_allclose(solve(fit, design, measured), [2, 2, 2, 2, 0, 0, 0], rtol=1e-3)


def test_each_model_is_predicted_from_the_others() -> None:
    design = np.outer([1.0, 1.0], [1, 0, 0, 0, 0, 1])
    predicted = left_out(FORMS[0], design, np.array([1.0, 2.0]))
    # Fitted on the second alone the scale is 2, on the first alone it is 1.
    np.testing.assert_allclose(predicted, [2.0, 1.0])


def test_the_reported_error_is_that_of_left_out_models() -> None:
    fit = fit_correction([whole(1.0, 1.0), whole(2.2, 2.0), whole(2.7, 3.0)])
    assert [entry.measured_ms for entry in fit.report] == [2.7, 2.2, 1.0]
    errors = [entry.error_pct for entry in fit.report]
    assert all(entry.left_out for entry in fit.report)
    assert (fit.median_error_pct, fit.max_error_pct) == (pytest.approx(np.median(errors)), pytest.approx(max(errors)))


def test_the_ends_of_many_models_are_always_seen() -> None:
    fit = fit_correction(models_of(8, noise=0.05, overhead_ms=0.3))
    assert [entry.left_out for entry in fit.report] == [False, *[True] * 6, False]
    assert fit.max_error_pct == pytest.approx(max(e.error_pct for e in fit.report if e.left_out))


def test_operators_are_corrected_by_kind() -> None:
    fit = Correction(
        scale=2.0,
        other_scale=3.0,
        operator_overhead_ms=0.5,
        pair_overhead_ms=0.25,
        overhead_ms=9.0,
        models=4,
        median_error_pct=0,
        max_error_pct=0,
    )
    assert [fit.operator_ms(o, 1.0) for o in (LINEAR, NORM, QUANTIZE)] == [2.5, 3.5, 3.75]
    assert fit.model_copy(update={"other_scale": None}).operator_ms(NORM, 1.0) == 2.5
    by_format = fit.model_copy(update={"format_scales": {"w4": 4.0}})
    assert [by_format.operator_ms(o, 1.0) for o in (LINEAR, LINEAR_W4, NORM)] == [2.5, 4.5, 3.5]
    assert [fit.operator_ms(o, 1.0) for o in (CORE, LINEAR, NORM)] == [3.5, 2.5, 3.5]
    with_attention = fit.model_copy(update={"attention_scale": 5.0})
    assert [with_attention.operator_ms(o, 1.0) for o in (CORE, LINEAR, NORM)] == [5.5, 2.5, 3.5]


def test_the_interval_is_a_quantile_of_the_errors_and_the_error_of_timing() -> None:
    """By hand: six models, one coefficient, so Student's 95 % quantile of five degrees of freedom, 2.015."""
    errors = (1.02, 0.98, 1.01, 0.97)
    seen = ModelError(name="ends", predicted_ms=9.0, measured_ms=1.0, left_out=False)
    report = (seen, *(ModelError(name="m", predicted_ms=e, measured_ms=1.0, left_out=True) for e in errors))
    fit = Correction(scale=1, overhead_ms=0, models=6, median_error_pct=2, max_error_pct=3, report=report)
    spread = math.sqrt(sum(math.log(e) ** 2 for e in errors) / 4)
    factor = math.exp(2.015 * spread) * 1.03
    assert fit.margin_pct == pytest.approx(100 * (factor - 1), rel=1e-3)
    assert fit.interval(10.0) == (pytest.approx(10 / factor, rel=1e-3), pytest.approx(10 * factor, rel=1e-3))


def test_coefficients_cost_degrees_of_freedom_and_bounds_none() -> None:
    fit = Correction(scale=1, overhead_ms=0, models=8, median_error_pct=2, max_error_pct=3)
    further = {"format_scales": {"fp32": 1.0, "w8a8": 0.9}, "other_scale": 2.0, "pair_overhead_ms": 0.1}
    costly = fit.model_copy(update=further)
    assert (fit.coefficients, costly.coefficients) == (1, 4)
    assert fit.margin_pct < costly.margin_pct


@pytest.mark.parametrize("largest", [0.0, 25.0, 1e300])
def test_a_correction_without_its_models_goes_by_its_largest_error(largest: float) -> None:
    fit = Correction(scale=1, overhead_ms=0, models=2, median_error_pct=0, max_error_pct=largest)
    low, high = fit.interval(10.0)
    assert math.isfinite(high)
    assert 0 < low < 10 / 1.03 + 1e-9
    assert high > 10 * min(1.03 + 2 * largest / 100, 1e9) - 1e-9


def test_measured_policies_lie_in_the_interval_as_often_as_it_says() -> None:
    """On what was kept of real measurements: policies that no correction saw, several workloads and models."""
    inside = []
    for path in RESULTS.glob("latency_error-*.json"):
        for row in json.loads(path.read_text())["rows"]:
            if not row["correction"]:
                continue
            fit = Correction.model_validate_json(json.dumps(row["correction"]))
            for policy in row["policies"]:
                low_ms, high_ms = fit.interval(policy["predicted_ms"])
                inside.append(low_ms <= policy["measured_ms"] <= high_ms)
    assert len(inside) >= 100
    assert np.mean(inside) >= CONFIDENCE


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([whole(1.0, 1.0)], "two or more models; got 1"),
        ([whole(1.0, 1.0), whole(2.0, float("nan"))], "finite and above 0"),
        ([whole(0.0, 1.0), whole(2.0, 2.0)], "finite and above 0"),
        ([whole(1.0, 0.0), whole(2.0, 2.0)], "finite and above 0"),
    ],
)
def test_bad_measurements_are_refused(models: list[MeasuredModel], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_correction(models)
