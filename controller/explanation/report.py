"""Where the time of a policy goes and which of its choices buy nothing, as records for people and for --json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.hardware_note import hardware_note
from controller.results import Record
from evaluators.latency.idle_choices import IdleKind
from evaluators.latency.single_changes import ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRow(Record):
    """A unit, the operators of one sort in it, or what no operator explains.

    Attributes:
        name: Name of the unit, "outside units", "overhead of a call" or "total".
        operator: What is computed; None for the whole unit.
        choice: The policy's choice of the unit in words; empty for what is no unit.
        latency_ms: Time inside the policy, corrected as its predicted latency is.
        share: Share of the policy's predicted latency.
        dense_ms: The same in the dense model.
        dense_share: Share of the dense model's predicted latency.
    """

    name: str
    operator: str | None = None
    choice: str = ""
    latency_ms: float
    share: float
    dense_ms: float
    dense_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Record):
    """A choice that buys no time on the target.

    Attributes:
        unit: Name of the unit.
        kind: Why.
        choice: The choice in words.
        better: What costs no more time and loses less, or what was pruned, in words.
        saved_ms: Time that the choice saves against that; 0 or below where it saves none.
        sentence: The finding in words.
    """

    unit: str
    kind: IdleKind
    choice: str
    better: str
    saved_ms: float
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving(Record):
    """Another choice of one unit, from the job's space, that would save time.

    Attributes:
        unit: Name of the unit.
        kind: Whether its format or what it keeps is changed.
        choice: The policy's choice in words.
        other: The other choice in words.
        saved_ms: Time that the change saves, above 0.
        share: That over the policy's predicted latency.
        trial: Number of the trial that scored the policy with just this change; None where none did.
        quality: Quality of that trial.
        quality_change: The same less the policy's own.
        sentence: The change in words.
    """

    unit: str
    kind: ChangeKind
    choice: str
    other: str
    saved_ms: float
    share: float
    trial: int | None = None
    quality: float | None = None
    quality_change: float | None = None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainReport(Record):
    """Where the time of a policy goes.

    Attributes:
        study: Name of the study.
        trial: Number of the trial.
        name: Its name.
        target: Device, threads and calls that the times are for, in words.
        table: The latency table.
        latency_ms: Predicted latency.
        low_ms: Lower bound of 90 % of measured times; None where nobody measured how far the prediction errs: the table
            has no correction for the workload, or the policy has operators outside what was measured.
        high_ms: Upper bound, likewise.
        dense_ms: Predicted latency of the dense model.
        size_ratio: Bytes over those of the dense model.
        tolerance: Relative difference of times that counts as none.
        rows: Units with their operators, then what lies outside, overhead and total.
        findings: Choices that buy no time.
        savings: Changes of one unit that would save most time, those of formats first.
        verdict: What is to be said of the choices where there are no such findings, or not of all units; else empty.
        untold: Units of which it is not known whether their choices buy time: the table can't price the others.
        sentences: What the figures say, a line each.
        foreign_table: Whether the table was measured on other hardware.
        measured_on: That hardware in words, where the study is meant for it; else None.
        extrapolated: How many operators lie outside what the table was measured for.
        files: What was written.
    """

    study: str
    trial: int
    name: str
    target: str
    table: Path
    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    dense_ms: float
    size_ratio: float
    tolerance: float
    rows: tuple[TimeRow, ...]
    findings: tuple[Finding, ...]
    savings: tuple[Saving, ...] = ()
    verdict: str = ""
    untold: tuple[str, ...] = ()
    sentences: tuple[str, ...]
    foreign_table: bool = False
    measured_on: str | None = None
    extrapolated: int = 0
    files: tuple[Path, ...] = ()

    @property
    def hardware_note(self) -> str | None:
        """What latencies of a table from elsewhere are to be read with; None where the table is from here."""
        return hardware_note(foreign_table=self.foreign_table, measured_on=self.measured_on)

    @property
    def latency_ratio(self) -> float:
        """Latency over that of the dense model."""
        return self.latency_ms / self.dense_ms
