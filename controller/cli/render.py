"""Shows results to people: the plan of a job, the front beside its baselines, an export beside the prediction."""

import shlex
from collections.abc import Callable, Sequence

from rich.console import Console

from controller.cli.render_registry import render_version
from controller.cli.text import (
    format_count,
    format_interval,
    format_ms,
    format_seconds,
    format_size,
    print_lines,
    print_table,
)
from controller.hardware_note import foreign_note
from controller.job_plan import JobPlan
from controller.results import (
    EXTRAPOLATED,
    ExportSummary,
    FrontRow,
    SearchResult,
)
from controller.study_view import reference_text
from controller.tables.results import ProfileSummary
from evaluators.latency.table.energy import EnergyBasis


def render_plan(console: Console, plan: JobPlan) -> None:
    """Show what a job would do."""
    rows = [
        (
            unit.name,
            unit.kind,
            ", ".join(str(keep) for keep in unit.keeps) + f" of {unit.groups}",
            ", ".join(unit.formats),
            str(unit.choices),
            format_ms(unit.latency_ms),
            format_size(unit.size_bytes),
        )
        for unit in plan.units
    ]
    title = f"{plan.study}: {len(plan.units)} units of {plan.architecture}"
    print_table(console, title, ("unit", "kind", "keep", "formats", "choices", "dense latency", "dense size"), rows)
    print_lines(console, f"policies: {format_count(plan.space_size)}; trials: {plan.trials}")
    print_lines(console, f"latency table: {plan.table_source}")
    interval = format_interval(plan.dense_low_ms, plan.dense_high_ms)
    print_lines(
        console,
        f"dense model: {format_ms(plan.dense_latency_ms)}{interval}, {format_size(plan.dense_size_bytes)}; smallest "
        f"reachable: {format_ms(plan.min_latency_ms)}, {format_size(plan.min_size_bytes)}",
    )
    if plan.latency_sentence:
        print_lines(console, plan.latency_sentence)
    energy = "energy unknown before there is a table"
    if plan.dense_energy_mj is not None and plan.min_energy_mj is not None:
        basis = "estimated" if plan.energy_basis is EnergyBasis.ESTIMATED else "measured"
        energy = (
            f"energy of a batch: {plan.dense_energy_mj:.3g} mJ dense, {plan.min_energy_mj:.3g} mJ at least ({basis})"
        )
    print_lines(
        console,
        f"{energy}; peak memory of activations: {format_size(plan.dense_peak_memory_bytes)} dense, "
        f"{format_size(plan.min_peak_memory_bytes)} at least",
    )
    if not plan.data_read:
        print_lines(console, "data: files looked at, rows not read; with --data every row is read and encoded")
    if plan.foreign_table:
        print_lines(console, foreign_note(plan.foreign), style="yellow")
    if plan.extrapolated:
        print_lines(console, f"{plan.extrapolated} {EXTRAPOLATED}", style="yellow")


def render_front(console: Console, result: SearchResult) -> None:
    """Show the front beside the dense model and the uniform policies, and what else is worth knowing."""
    _rows(console, f"{result.study}: front", result, result.front)
    if result.baselines:
        _rows(console, "beside it: dense and uniform policies", result, result.baselines)
    if result.least_violating:
        _rows(console, "closest to the constraints", result, result.least_violating)
    hypervolume = "" if result.hypervolume is None else f", hypervolume {result.hypervolume:.4f}"
    measured = "" if result.hypervolume is None else reference_text(result.reference, result.metric)
    print_lines(console, f"{result.trials_done} trials, {len(result.front)} on the front{hypervolume}{measured}")
    if result.counts is not None:
        worth = f"; trials and probes are worth {result.counts.evaluations} evaluations on all examples"
        print_lines(console, f"counted: {result.counts.text}{worth}")
    if result.latency_sentence:
        print_lines(console, result.latency_sentence)
    if result.origin is not None:
        taken_over = sum(row.taken_over for row in result.front)
        print_lines(console, f"{result.target}; scores of {taken_over} members are taken over from {result.origin}")
    for sentence in () if result.holdout_check is None else result.holdout_check.sentences:
        print_lines(console, sentence)
    if result.picked is not None:
        print_lines(console, f"picked {result.picked.explanation}", style="green")
        if result.picked.warning:
            print_lines(console, result.picked.warning, style="yellow")
    for group in result.failures:
        print_lines(console, f"{group.count} failed ({group.reason}), for example: {group.example}", style="yellow")
    for note in result.notes:
        print_lines(console, f"note: {note}", style="yellow")
    if result.hardware_note is not None:
        print_lines(console, result.hardware_note, style="yellow")
    if result.extrapolated:
        print_lines(console, f"{result.extrapolated} {EXTRAPOLATED}", style="yellow")
    if result.mlflow_address is not None:
        print_lines(console, f"MLflow: {result.mlflow_address}")
    for further in result.further:
        render_front(console, further)


def commands_after_search(result: SearchResult) -> tuple[str, ...]:
    """Return what to type after a search: nothing where it found nothing."""
    if not result.feasible or result.interrupted:
        return ()
    return (f"paretrim front {shlex.quote(result.study)} --pick knee", _export_command(result))


def commands_after_front(result: SearchResult) -> tuple[str, ...]:
    """Return what to type after a look at a front."""
    if not result.feasible:
        return ()
    if result.picked is None:
        shown = next((row for row in result.front if row.knee), result.front[-1])
        return (
            f"paretrim policy {shlex.quote(result.study)} --trial {shown.trial}",
            _export_command(result),
        )
    study = shlex.quote(result.study)
    return tuple(
        f"paretrim {command}"
        for command in (
            f"policy {study} --trial {result.picked.trial}",
            f"export {study} --trial {result.picked.trial} --out {study}-{result.picked.trial}",
        )
    )


def _export_command(result: SearchResult) -> str:
    return f'paretrim export {shlex.quote(result.study)} --pick "fastest within 1% quality" --out best'


def _rows(console: Console, title: str, result: SearchResult, rows: Sequence[FrontRow]) -> None:
    """Show policies; whether they meet the constraints is said only where some do not."""
    with_holdout = any(row.holdout_quality is not None for row in rows)
    with_verdict = not all(row.feasible for row in rows)
    with_metric = any(row.holdout_metric is not None for row in rows)
    columns = ["policy", result.metric, *(["holdout", "gap"] if with_holdout else [])]
    columns += [f"{result.task_metric} on holdout"] if with_metric else []
    further = _further(result)
    columns += ["latency", "of dense", "size", *further]
    columns += ["within bounds"] if with_verdict else []
    lines = []
    for row in rows:
        gap = "" if row.search_gap is None else f"{row.search_gap:+.4f}"
        line = [row.label, f"{row.quality:.4f}", *([_holdout(row), gap] if with_holdout else [])]
        line += [_holdout_metric(row)] if with_metric else []
        line += [format_ms(row.latency_ms), f"{row.latency_ratio:.2f}x", format_size(row.size_bytes)]
        line += [further[heading](row) for heading in further]
        lines.append(line + (["yes" if row.feasible else "no"] if with_verdict else []))
    print_table(console, title, columns, lines)


def _further(result: SearchResult) -> dict[str, Callable[[FrontRow], str]]:
    """Columns of the costs beside latency and size that the job names."""
    found: dict[str, Callable[[FrontRow], str]] = {}
    if result.energy_heading is not None:
        found[result.energy_heading] = lambda row: "" if row.energy_mj is None else f"{row.energy_mj:.3g} mJ"
    if result.names_memory:
        found["peak memory"] = lambda row: format_size(row.peak_memory_bytes)
    return found


def _holdout(row: FrontRow) -> str:
    if row.holdout_quality is None:
        return ""
    if row.holdout_low is None or row.holdout_high is None:
        return f"{row.holdout_quality:.4f}"
    return f"{row.holdout_quality:.4f} ({row.holdout_low:.4f} to {row.holdout_high:.4f})"


def _holdout_metric(row: FrontRow) -> str:
    check = row.holdout_metric
    return "" if check is None else f"{check.value:.4f} ({check.low:.4f} to {check.high:.4f})"


def render_profile(console: Console, summary: ProfileSummary) -> None:
    """Show what a profile run wrote."""
    spread = "" if summary.spread is None else f", median spread {100 * summary.spread:.1f} %"
    print_lines(console, f"{summary.table}: {summary.entries} operators of {summary.target}{spread}")
    added = f"{summary.added} of them measured now for the {summary.needed} asked for, " if summary.needed else ""
    print_lines(console, f"{added}measured on {summary.fingerprint} in {format_seconds(summary.seconds)}")
    if summary.correction_error_pct is not None:
        print_lines(
            console,
            f"correction fitted on {summary.correction_models} whole models; error on models left out: "
            f"{summary.correction_error_pct:.1f} % (median), {summary.correction_max_error_pct:.1f} % (largest)",
        )
    for note in summary.notes:
        print_lines(console, f"note: {note}", style="yellow")


def render_export(console: Console, report: ExportSummary) -> None:
    """Show an artifact beside what the search said of it."""
    source = "a baseline" if report.trial is None else f"trial {report.trial}"
    rows = [
        (
            f"{report.metric} on the holdout",
            f"{report.dense_quality:.4f}",
            f"{report.searched_quality:.4f}",
            f"{report.exported_quality:.4f}",
        ),
        (
            "latency",
            format_ms(report.dense_latency_ms),
            format_ms(report.predicted_latency_ms),
            format_ms(report.measured_latency_ms),
        ),
        (
            "size",
            format_size(report.dense_size_bytes),
            format_size(report.predicted_size_bytes),
            format_size(report.measured_size_bytes),
        ),
        ("largest difference of logits", "", "", f"{report.max_logits_difference:.2e}"),
    ]
    print_lines(console, f"picked {report.explanation}")
    if report.warning:
        print_lines(console, report.warning, style="yellow")
    print_table(console, f"{source} of {report.study}", ("", "dense", "searched", "exported"), rows)
    if interval := format_interval(report.predicted_low_ms, report.predicted_high_ms):
        predicted = format_ms(report.predicted_latency_ms)
        print_lines(console, f"latency as searched, for 90 % of measured times: {predicted}{interval}")
    if report.unrecovered_quality is not None:
        print_lines(
            console,
            f"recovered: {report.metric} on the holdout {report.unrecovered_quality:.4f} before training, "
            f"{report.searched_quality:.4f} after",
        )
    if report.predicted_for is not None:
        print_lines(
            console,
            f"the searched latency holds on {report.predicted_for}; the others were measured on this machine and say "
            "nothing of it: time the artifact there",
            style="yellow",
        )
    if report.early_exit is not None:
        leaving = report.early_exit
        print_lines(
            console,
            f"early exit after {leaving.block}: {leaving.share:.1%} of the holdout leave there; mean latency over its "
            f"examples {format_ms(leaving.mean_latency_ms)}, without the exit "
            f"{format_ms(leaving.whole_mean_latency_ms)}, dense {format_ms(leaving.dense_mean_latency_ms)}; "
            f"{report.metric} without the exit {leaving.whole_quality:.4f}",
        )
    print_lines(console, f"verified: {report.artifact}", style="green")
    if report.registered is not None:
        render_version(console, report.registered)
