"""Shows what concerns a target: a study's front on another one, and where the time of a policy goes."""

from rich.console import Console

from controller.cli.render import render_front
from controller.cli.text import format_interval, format_ms, format_size, print_lines, print_table
from controller.explanation.report import ExplainReport
from controller.results import EXTRAPOLATED
from controller.retargeting.report import RetargetResult


def render_retarget(console: Console, report: RetargetResult) -> None:
    """Show the front on the other target, and the front before with its latencies on both."""
    rows = [
        (
            row.name,
            f"{row.quality:.4f}",
            format_ms(row.latency_before_ms),
            "no kernels" if row.latency_ms is None else format_ms(row.latency_ms),
            format_size(row.size_bytes),
            row.on_front_text,
        )
        for row in report.before
    ]
    columns = ("policy", report.result.metric, "latency before", "latency now", "size", "on the front now")
    print_table(console, f"front of {report.origin} ({report.origin_target})", columns, rows)
    render_front(console, report.result)
    for sentence in report.sentences:
        print_lines(console, sentence)
    for path in report.files:
        if path.name.startswith("retarget."):
            print_lines(console, f"wrote {path}")


def render_explain(console: Console, report: ExplainReport) -> None:
    """Show where the time of a policy goes, beside the dense model, and which choices buy nothing or could save."""
    rows = [
        (
            row.name if row.operator is None else f"  {row.operator}",
            row.choice,
            format_ms(row.latency_ms),
            f"{row.share:.1%}",
            format_ms(row.dense_ms),
            f"{row.dense_share:.1%}",
        )
        for row in report.rows
    ]
    title = f"{report.study}, {report.name}: where the time goes on {report.target}"
    print_table(console, title, ("unit", "choice", "time", "share", "dense", "share"), rows)
    interval = format_interval(report.low_ms, report.high_ms)
    print_lines(console, f"predicted latency: {format_ms(report.latency_ms)}{interval}")
    for sentence in report.sentences:
        print_lines(console, sentence)
    for finding in report.findings:
        print_lines(console, finding.sentence, style="yellow")
    if report.verdict:
        print_lines(console, report.verdict, style="yellow" if report.untold else "green")
    for saving in report.savings:
        print_lines(console, saving.sentence)
    if report.hardware_note is not None:
        print_lines(console, report.hardware_note, style="yellow")
    if report.extrapolated:
        print_lines(console, f"{report.extrapolated} {EXTRAPOLATED}", style="yellow")
    for path in report.files:
        print_lines(console, f"wrote {path}")
