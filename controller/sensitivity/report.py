"""What a sensitivity report holds: per unit the loss of every single change, its share of the costs, its curvature."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controller.results import Record
from controller.safe_writing import csv_cell

CSV_COLUMNS = (
    "unit",
    "kind",
    "groups",
    "latency_share",
    "size_share",
    "fisher_trace",
    "fisher_per_weight",
    "axis",
    "change",
    "keep",
    "format",
    "loss",
    "loss_low",
    "loss_high",
    "kl_to_dense",
    "examples",
    "saved_latency_ms",
    "saved_size_bytes",
    "failure",
)


class Axis(StrEnum):
    """Along what a unit is changed."""

    KEEP = "keep"
    FORMAT = "format"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Record):
    """One unit changed along one axis, and everything else as in the reference.

    Attributes:
        axis: What changes.
        keep: Groups that stay.
        share: Share of the unit's groups that stay, 0 to 1.
        format: Number format of the unit.
        loss: Metric of the reference less that of the change, on the same examples; None where nobody scored it.
        loss_low: Lower end of the loss's confidence interval.
        loss_high: Upper end of it.
        kl_to_dense: Divergence of the outputs from the dense model's, in nats.
        examples: Examples behind the loss; 0 without one.
        saved_latency_ms: Latency that the change saves, exact.
        saved_size_bytes: Bytes that it saves, exact.
        failure: Why it has no score, where one was tried.
    """

    axis: Axis
    keep: int
    share: float
    format: str
    loss: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    kl_to_dense: float | None = None
    examples: int = 0
    saved_latency_ms: float
    saved_size_bytes: int
    failure: str | None = None

    @property
    def label(self) -> str:
        """The change in a word or two, the same for units of other widths: "keep 0.5", "w8a8"."""
        return self.format if self.axis is Axis.FORMAT else f"keep {round(self.share, 2):g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSensitivity(Record):
    """One unit.

    Attributes:
        name: Name of the unit.
        kind: What its groups are.
        groups: Groups of the dense unit.
        latency_ms: Predicted time of the dense unit.
        latency_share: Share of the dense model's latency, 0 to 1.
        size_bytes: Bytes of the dense unit.
        size_share: Share of the dense model's size, 0 to 1.
        fisher_trace: Trace of the Fisher information of its weights, per example, which is that of the Gauss-Newton
            part of the Hessian of the divergence; None where it was not computed.
        fisher_per_weight: That, divided by the number of weights.
        changes: Changes that the space offers, keep first.
    """

    name: str
    kind: str
    groups: int
    latency_ms: float
    latency_share: float
    size_bytes: int
    size_share: float
    fisher_trace: float | None = None
    fisher_per_weight: float | None = None
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityReport(Record):
    """How much each unit matters.

    Attributes:
        study: Name of the study.
        metric: Name of the quality metric.
        reference: What losses are measured against ("dense").
        reference_quality: Its metric on the whole search split.
        examples: Examples of the search split.
        units: Units in the model's order.
        scored: Single changes that have a score.
        missing: Changes that the sampler would probe and nobody scored.
        confidence: Confidence level of the intervals.
        notes: What else the user should know, a line each.
        files: Files that were written.
    """

    study: str
    metric: str
    reference: str
    reference_quality: float
    examples: int
    units: tuple[UnitSensitivity, ...]
    scored: int
    missing: int
    confidence: float
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Labels of all changes: falling keeps, then formats in the order in which units name them."""
        changes = [change for unit in self.units for change in unit.changes]
        keeps = {change.label: change.share for change in changes if change.axis is Axis.KEEP}
        formats = dict.fromkeys(change.label for change in changes if change.axis is Axis.FORMAT)
        return (*sorted(keeps, key=lambda label: -keeps[label]), *formats)

    @property
    def has_fisher(self) -> bool:
        """Whether the Fisher information was computed."""
        return any(unit.fisher_trace is not None for unit in self.units)


def sensitivity_csv(report: SensitivityReport) -> str:
    """All changes as comma-separated values, a row each; a unit without choices has one row without a change."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for unit in report.units:
        writer.writerows(_csv_rows(unit))
    return text.getvalue()


def _csv_rows(unit: UnitSensitivity) -> Iterator[list[str]]:
    head = {name: getattr(unit, name) for name in CSV_COLUMNS[2:7]}
    head = {"unit": csv_cell(unit.name), "kind": unit.kind, **head}
    for change in unit.changes or (None,):
        cells = dict(head)
        if change is not None:
            cells |= {name: getattr(change, name) for name in CSV_COLUMNS[9:]}
            cells |= {"axis": change.axis.value, "change": change.label}
            cells["failure"] = csv_cell(change.failure or "")
        yield ["" if cells.get(name) is None else str(cells[name]) for name in CSV_COLUMNS]
