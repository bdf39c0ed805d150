"""Shows latency tables to people: what one holds, what is odd about it, and how two differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from controller.cli.text import format_ms, format_size, print_lines, print_table
from controller.hardware_note import foreign_note
from controller.results import EXTRAPOLATED
from controller.tables.results import ShippedTable, TableComparison, TableReport, TableWritten

_OF_THE_ERROR = {"models", "median_error_pct", "max_error_pct", "report"}


def render_table(console: Console, report: TableReport) -> None:
    """Show what a table holds."""
    print_lines(console, f"{report.file}: {report.entries} operators of {report.target}")
    _fields(console, "fingerprint", report.fingerprint)
    _fields(console, "provenance", {key: v for key, v in report.provenance.items() if key not in ("notes", "sources")})
    for source in report.provenance["sources"]:
        _fields(console, "imported from", {key: v for key, v in source.items() if key != "assumptions"})
        for assumption in source["assumptions"]:
            print_lines(console, f"  assumed: {assumption}", style="yellow")
    for note in report.provenance["notes"]:
        print_lines(console, f"note: {note}", style="yellow")
    rows = [
        (
            kind.kind,
            str(kind.rows),
            format_ms(kind.low_ms),
            format_ms(kind.high_ms),
            "" if kind.spread is None else f"{100 * kind.spread:.1f} %",
            "" if kind.repeats is None else str(kind.repeats),
        )
        for kind in report.kinds
    ]
    print_table(console, "rows by kind", ("kind", "rows", "fastest", "slowest", "spread", "repeats"), rows)
    for kind in report.kinds:
        axes = ", ".join(
            f"{axis} {low}" + ("" if low == high else f" to {high}") for axis, (low, high) in kind.axes.items()
        )
        print_lines(console, f"  {kind.kind}: {axes}")
    _corrections(console, report)
    _caches(console, report)
    _energy(console, report)
    print_lines(console, f"checksum {report.checksum}")


def _fields(console: Console, title: str, fields: Mapping[str, Any]) -> None:
    """Show what is known of some fields, below a title and indented one step further."""
    indent = " " * (len(title) - len(title.lstrip()) + 2)
    print_lines(console, title)
    for name, value in fields.items():
        if value not in (None, [], {}, 0):
            print_lines(console, f"{indent}{name}: {_words(value)}")


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(_words(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _corrections(console: Console, report: TableReport) -> None:
    if not report.corrections:
        print_lines(console, "no correction: predictions are plain sums of operators")
        return
    for correction in report.corrections:
        fit, basis = correction["fit"], correction["basis"]
        of_model = f" of {basis['model']}" if basis else ""
        print_lines(
            console,
            f"correction for batch {correction['batch']}, {correction['sequence_length']} tokens{of_model}, fitted "
            f"on {fit['models']} models: a model left out of the fit is predicted with an error of "
            f"{fit['median_error_pct']:.1f} % (median), {fit['max_error_pct']:.1f} % (largest)",
        )
        _fields(console, "  coefficients", {name: fit[name] for name in fit if name not in _OF_THE_ERROR})
        for model in fit["report"]:
            error = 100 * (model["predicted_ms"] / model["measured_ms"] - 1)
            seen = "" if model["left_out"] else ", seen by the fit"
            print_lines(
                console,
                f"  {model['name']}: measured {format_ms(model['measured_ms'])}, predicted "
                f"{format_ms(model['predicted_ms'])} ({error:+.1f} %{seen})",
            )


def _caches(console: Console, report: TableReport) -> None:
    for curve in report.caches:
        small, large = curve["sizes_bytes"][0], curve["sizes_bytes"][-1]
        print_lines(
            console,
            f"{curve['format']} products of {curve['tokens']} tokens take {curve['times'][0]:.2f} of their time where "
            f"a policy has {format_size(small)} of weights in place of {format_size(large)}",
        )


def _energy(console: Console, report: TableReport) -> None:
    if report.energy is None:
        print_lines(console, "no energy: energies are estimated by coefficients of the literature")
        return
    fields = dict(report.energy)
    for name, unit in (("watts", "W"), ("multiply_add_pj", "pJ")):
        if name in fields:
            fields[name] = [f"{kind} {figure:.3g} {unit}" for kind, figure in fields[name].items()]
    _fields(console, "energy", fields)


def render_shipped(console: Console, tables: Sequence[ShippedTable]) -> None:
    """Show the tables of the package."""
    if not tables:
        print_lines(console, "no table comes with this version; `paretrim profile` measures this machine")
        return
    rows = [
        (
            table.name,
            table.device,
            table.runtime,
            str(table.threads),
            str(table.entries),
            ", ".join(table.workloads),
            "no" if table.differences else "yes",
        )
        for table in tables
    ]
    columns = ("table", "device", "runtime", "threads", "rows", "corrected for", "holds here")
    print_table(console, "tables that come with Paretrim", columns, rows)
    for table in tables:
        if table.differences:
            print_lines(console, f"{table.name}: {'; '.join(table.differences)}", style="yellow")
        print_lines(console, f"{table.name}: {table.file}")


def render_check(console: Console, report: TableReport) -> None:
    """Show what a check of a table found."""
    for note in report.provenance["notes"]:
        print_lines(console, f"note: {note}", style="yellow")
    for warning in report.warnings:
        print_lines(console, f"warning: {warning}", style="yellow")
    if (coverage := report.coverage) is not None:
        print_lines(console, f"{report.file} answers for all {coverage.operators} operators of {coverage.study}")
        if not coverage.corrected:
            print_lines(
                console,
                "warning: there is no correction for the job's workload; predictions are plain sums of operators",
                style="yellow",
            )
        if coverage.extrapolated:
            print_lines(console, f"{coverage.extrapolated} {EXTRAPOLATED}", style="yellow")
        if coverage.foreign and coverage.refusal is None:
            print_lines(console, foreign_note(coverage.foreign), style="yellow")
    print_lines(console, f"{report.file}: sound, {report.entries} operators of {report.target}", style="green")


def render_diff(console: Console, comparison: TableComparison) -> None:
    """Show how two tables differ."""
    diff = comparison.diff
    for difference in diff.differences:
        print_lines(console, difference, style="yellow")
    if not diff.differences:
        print_lines(console, "same target, device, runtime and threads")
    print_lines(
        console,
        f"{diff.common} operators in both, {diff.only_first} only in {comparison.first}, {diff.only_second} only in "
        f"{comparison.second}",
    )
    if diff.median_ratio is None:
        return
    print_lines(console, f"times of the second over the first: median {diff.median_ratio:.3f}")
    rows = [(k.kind, str(k.rows), f"{k.median:.3f}", f"{k.low:.3f}", f"{k.high:.3f}") for k in diff.kinds]
    print_table(console, "ratio by kind", ("kind", "rows", "median", "smallest", "largest"), rows)
    if diff.largest:
        print_lines(console, "largest deviations")
    for row in diff.largest:
        print_lines(
            console, f"  {row.ratio:.3f}: {format_ms(row.first_ms)} to {format_ms(row.second_ms)}, {row.operator}"
        )


def render_written(console: Console, written: TableWritten) -> None:
    """Show what was written."""
    for note in written.notes:
        print_lines(console, note)
    print_lines(console, f"{written.file}: {written.entries} operators of {written.target}", style="green")
