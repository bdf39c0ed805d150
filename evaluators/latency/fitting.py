"""Fits a correction on whole models that were measured end to end, and chooses its form by leaving models out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from evaluators.latency.correction import ATTENTION, PAIRS, PRODUCTS, Correction, ModelError
from evaluators.latency.workload import Operator

RIDGE = 1e-3
"""Weight of the pull towards one scale and no overhead, against a squared relative error of a model."""
MODELS_BEYOND_COEFFICIENTS = 3
"""With fewer models more than coefficients, leaving one out says nothing about a form."""
MODELS_WITH_ENDS = 6
"""From so many models on, the fastest and the slowest are never left out."""
SIMPLER_WITHIN = 1.1
"""A form with fewer coefficients is taken if its error is within this factor of the best one's; of several such forms
with equally many coefficients, the one with the least error."""

Floats = npt.NDArray[np.float64]
Work = Sequence[tuple[Operator, int, float]]
"""Operators of a model, how often each runs, and its time by the table in ms, without correction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """A whole model: the work that it does, and how long that takes.

    Attributes:
        name: The model's policy, for people.
        work: Its operators with their times.
        measured_ms: Time of the whole model, above 0.
    """

    name: str
    work: Work
    measured_ms: float


class Term(IntEnum):
    """What a time is a sum of, besides the products: a column of the design from its end, in ms or as a count."""

    ATTENTION = -5
    """Times of operators that only attention has."""
    OTHERS = -4
    """Times of other operators that do not multiply by weights."""
    OPERATORS = -3
    """Number of operators."""
    PAIRS = -2
    """Number of changes between float and integer."""
    CALL = -1
    """One."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Which coefficients a correction has.

    Attributes:
        formats: Whether products have a scale for each format; then operators without weights have one too.
        others: Whether operators without weights have a scale of their own.
        attention: Whether those of attention have one.
        overheads: Terms with a coefficient in ms.
    """

    formats: bool = False
    others: bool = False
    attention: bool = False
    overheads: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        assert self.others or not self.formats

    def size(self, formats: int) -> int:
        """Number of coefficients where products have so many formats."""
        return len(self.scaled(formats)) + len(self.overheads)

    def scaled(self, formats: int) -> list[list[int]]:
        """Columns of times that share a scale, by scale, where products have so many formats."""
        times = [[column] for column in range(formats)] if self.formats else [list(range(formats))]
        attention, others = formats, formats + 1
        if self.others:
            times.append([others])
        else:
            times[-1].append(others)
        if self.attention:
            times.append([attention])
        else:
            # With the other operators without weights, wherever these are.
            times[-1].append(attention)
        return times


_OVERHEADS = ((), (Term.CALL,), (Term.CALL, Term.OPERATORS), (Term.CALL, Term.PAIRS))

FORMS = tuple(
    Form(formats=formats, others=others, attention=attention, overheads=overheads)
    for formats, others, attention in (
        (False, False, False),
        (False, True, False),
        (False, False, True),
        (False, True, True),
        (True, True, False),
        (True, True, True),
    )
    for overheads in _OVERHEADS
)
"""Forms to choose from."""


def formats_of(works: Iterable[Work]) -> list[str]:
    """Return the formats of the products of models, sorted."""
    return sorted({o.format or "" for work in works for o, _, _ in work if o.kind in PRODUCTS})


def terms_of(work: Work, formats: Sequence[str]) -> Floats:
    """Return what a model's time is a sum of, (T,): times of products by format, then those of `Term`.

    Args:
        work: Operators, how often each runs, and its time by the table in ms.
        formats: All formats that products of the models have.
    """
    terms_T = np.zeros(len(formats) + len(Term))
    terms_T[Term.CALL] = 1
    for operator, count, raw_ms in work:
        if operator.kind in PRODUCTS:
            column = formats.index(operator.format or "")
        else:
            column = Term.ATTENTION if operator.kind in ATTENTION else Term.OTHERS
        terms_T[column] += count * raw_ms
        terms_T[Term.OPERATORS] += count
        terms_T[Term.PAIRS] += count * (operator.kind in PAIRS)
    return terms_T


def fit_correction(models: Sequence[MeasuredModel]) -> Correction:
    """Fit the form of correction that predicts left-out models best.

    Args:
        models: Two or more whole models; the more, the more coefficients are tried.

    Returns:
        The correction with its leave-one-out error and the models one by one.

    Raises:
        ValueError: Fewer than two models, or a time that is not above 0.
    """
    if len(models) < 2:
        raise ValueError(f"a correction is fitted on two or more models; got {len(models)}; measure more")
    formats = formats_of(model.work for model in models)
    design_MT = np.stack([terms_of(model.work, formats) for model in models])
    measured_M = np.array([model.measured_ms for model in models])
    sums_M = design_MT[:, : Term.OPERATORS].sum(axis=1)
    times_M = np.concatenate([sums_M, measured_M])
    if not (np.isfinite(times_M).all() and (times_M > 0).all()):
        raise ValueError(
            f"times are finite and above 0 ms; got sums of operators {sums_M.tolist()} and measured times "
            f"{measured_M.tolist()}; measure again"
        )
    errors = {form: _mean_error(form, design_MT, measured_M) for form in FORMS if _fits(form, design_MT, measured_M)}
    best = min(errors.values())
    simple_first = sorted(errors, key=lambda form: (form.size(len(formats)), errors[form]))
    form = next(form for form in simple_first if errors[form] <= SIMPLER_WITHIN * best)
    return _correction(form, formats, models, design_MT, measured_M)


def solve(form: Form, design_MT: Floats, measured_M: Floats) -> Floats:
    """Return coefficients (T,) with the least sum of squared relative errors, all 0 or more, pulled towards one scale.

    Args:
        form: Which coefficients there are; the others are 0, or the common scale where they are of times.
        design_MT: Terms of the models, (M, T): times of products by format, then those of `Term`.
        measured_M: Times of the models in ms, (M,).
    """
    from scipy.optimize import nnls

    share_MT = design_MT / measured_M[:, None]
    sums_M = share_MT[:, : Term.OPERATORS].sum(axis=1)
    scale = float(sums_M.sum() / (sums_M @ sums_M))
    groups = form.scaled(design_MT.shape[1] - len(Term))
    scaled = [share_MT[:, group].sum(axis=1) for group in groups]
    columns_MC = np.stack([*scaled, *(share_MT[:, term] for term in form.overheads)], axis=1)
    # A coefficient's pull is felt in units of the time that its term takes; one that no model has stays at its aim.
    pull_C = np.maximum(np.sqrt(RIDGE * len(measured_M)) * columns_MC.mean(axis=0), 1e-6)
    towards_C = pull_C * np.array([scale] * len(scaled) + [0.0] * len(form.overheads))
    found_C, _ = nnls(np.vstack([columns_MC, np.diag(pull_C)]), np.concatenate([np.ones(len(measured_M)), towards_C]))
    coefficients_T = np.zeros(design_MT.shape[1])
    for group, found in zip(groups, found_C, strict=False):
        coefficients_T[group] = found
    coefficients_T[list(form.overheads)] = found_C[len(scaled) :]
    return coefficients_T


def left_out(form: Form, design_MT: Floats, measured_M: Floats) -> Floats:
    """Return each model's time (M,) in ms as predicted by a fit on all others."""
    rows = np.arange(len(measured_M))
    return np.array([design_MT[m] @ solve(form, design_MT[rows != m], measured_M[rows != m]) for m in rows])


def _fits(form: Form, design_MT: Floats, measured_M: Floats) -> bool:
    """Whether there are models and formats enough for a form, and no operator loses all its time in it."""
    formats = design_MT.shape[1] - len(Term)
    if form.size(formats) == 1:
        return True
    if (form.formats and formats < 2) or (form.attention and not design_MT[:, Term.ATTENTION].any()):
        return False
    if form.size(formats) + MODELS_BEYOND_COEFFICIENTS > len(measured_M):
        return False
    return bool(solve(form, design_MT, measured_M)[: Term.OPERATORS].min() > 0)


def _mean_error(form: Form, design_MT: Floats, measured_M: Floats) -> float:
    errors_M = np.abs(left_out(form, design_MT, measured_M) / measured_M - 1)
    return float(errors_M[_left_out_rows(measured_M)].mean())


def _left_out_rows(measured_M: Floats) -> npt.NDArray[np.bool_]:
    """Models that count as left out: all, or all but the ends where there are many."""
    rows_M = np.ones(len(measured_M), dtype=np.bool_)
    if len(measured_M) >= MODELS_WITH_ENDS:
        rows_M[[measured_M.argmin(), measured_M.argmax()]] = False
    return rows_M


def _correction(
    form: Form, formats: Sequence[str], models: Sequence[MeasuredModel], design_MT: Floats, measured_M: Floats
) -> Correction:
    coefficients_T = solve(form, design_MT, measured_M)
    counts_M = _left_out_rows(measured_M)
    predicted_M = np.where(counts_M, left_out(form, design_MT, measured_M), design_MT @ coefficients_T)
    report = [
        ModelError(
            name=models[m].name,
            predicted_ms=float(predicted_M[m]),
            measured_ms=float(measured_M[m]),
            left_out=bool(counts_M[m]),
        )
        for m in np.argsort(-measured_M)
    ]
    errors = [entry.error_pct for entry in report if entry.left_out]
    return Correction(
        scale=_common_scale(form, design_MT, coefficients_T),
        format_scales=dict(zip(formats, coefficients_T.tolist(), strict=False)) if form.formats else {},
        other_scale=float(coefficients_T[Term.OTHERS]) if form.others else None,
        attention_scale=float(coefficients_T[Term.ATTENTION]) if form.attention else None,
        operator_overhead_ms=float(coefficients_T[Term.OPERATORS]),
        pair_overhead_ms=float(coefficients_T[Term.PAIRS]),
        overhead_ms=float(coefficients_T[Term.CALL]),
        models=len(models),
        median_error_pct=float(np.median(errors)),
        max_error_pct=max(errors),
        report=tuple(report),
    )


def _common_scale(form: Form, design_MT: Floats, coefficients_T: Floats) -> float:
    """The scale of products: of all of them together where each format has its own."""
    if not form.formats:
        return float(coefficients_T[0])
    times_F = design_MT[:, : Term.ATTENTION].sum(axis=0)
    return float(coefficients_T[: Term.ATTENTION] @ times_F / times_F.sum())
