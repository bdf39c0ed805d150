"""Shows a sensitivity report and a tolerance sweep to people."""

from rich.console import Console

from controller.cli.text import format_ms, format_size, print_lines, print_table
from controller.results import EXTRAPOLATED, FOREIGN_TABLE
from controller.sensitivity.report import Change, SensitivityReport, UnitSensitivity
from controller.sensitivity.sweep_report import SweepResult, SweepRow


def render_sensitivity(console: Console, report: SensitivityReport) -> None:
    """Show the loss of every single change by unit, with the divergence from the dense model in brackets."""
    title = (
        f"{report.study}: loss of {report.metric} against {report.reference} when one unit is changed alone "
        "(divergence in nats)"
    )
    columns = ("unit", "latency", "size", *(["Fisher/weight"] if report.has_fisher else []), *report.columns)
    print_table(console, title, columns, [_unit_cells(report, unit) for unit in report.units])
    counts = sorted({change.examples for unit in report.units for change in unit.changes if change.examples})
    on = f" on {' or '.join(str(count) for count in counts)} of {report.examples} examples" if counts else ""
    print_lines(
        console,
        f"{report.scored} changes scored{on}; {report.metric} of {report.reference} {report.reference_quality:.4f}; "
        "latency and size are shares of the dense model's",
    )
    for note in report.notes:
        print_lines(console, f"note: {note}", style="yellow")
    for path in report.files:
        print_lines(console, f"wrote {path}")


def _unit_cells(report: SensitivityReport, unit: UnitSensitivity) -> list[str]:
    by_label = {change.label: change for change in unit.changes}
    fisher = "" if unit.fisher_per_weight is None else f"{unit.fisher_per_weight:.3g}"
    return [
        unit.name,
        f"{unit.latency_share:.1%}",
        f"{unit.size_share:.1%}",
        *([fisher] if report.has_fisher else []),
        *(_change_cell(by_label.get(label)) for label in report.columns),
    ]


def _change_cell(change: Change | None) -> str:
    if change is None:
        return ""
    if change.loss is None:
        return "-" if change.failure is None else "failed"
    divergence = "" if change.kl_to_dense is None else f" ({change.kl_to_dense:.2g})"
    return f"{change.loss:+.3f}{divergence}"


def render_sweep(console: Console, result: SweepResult) -> None:
    """Show keep against quality, latency and memory, and how far each format can be pruned."""
    title = f"{result.study}: uniform pruning, {result.metric} on {result.examples} search examples"
    columns = ("policy", "kept", result.metric, "loss", "latency", "of dense", "memory", "of dense", "tolerated")
    dense = (
        "dense",
        "1.00",
        f"{result.dense_quality:.4f}",
        "",
        format_ms(result.dense_latency_ms),
        "1.00x",
        format_size(result.dense_size_bytes),
        "1.00x",
        "",
    )
    print_table(console, title, columns, [dense, *(_sweep_cells(row) for row in result.rows)])
    for row in result.rows:
        if row.failure is not None:
            print_lines(console, f"{row.name} has no score: {row.failure}", style="yellow")
    for verdict in result.verdicts:
        print_lines(console, verdict.sentence, style="" if verdict.keep is None else "green")
    print_lines(
        console, f"{result.scored} of {len(result.rows)} scored now, the others before; memory is that of the weights"
    )
    if result.foreign_table:
        print_lines(console, FOREIGN_TABLE, style="yellow")
    if result.extrapolated:
        print_lines(console, f"{result.extrapolated} {EXTRAPOLATED}", style="yellow")


def _sweep_cells(row: SweepRow) -> tuple[str, ...]:
    interval = "" if row.drop_low is None else f" ({row.drop_low:+.4f} to {row.drop_high:+.4f})"
    return (
        row.name,
        f"{row.kept:.2f}",
        "failed" if row.quality is None else f"{row.quality:.4f}",
        "" if row.drop is None else f"{row.drop:+.4f}{interval}",
        format_ms(row.latency_ms),
        f"{row.latency_ratio:.2f}x",
        format_size(row.size_bytes),
        f"{row.size_ratio:.2f}x",
        "yes" if row.within else "no",
    )
