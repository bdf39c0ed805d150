"""Shows a calibration of a latency table to people."""

from rich.console import Console

from controller.cli.text import format_ms, format_seconds, print_lines, print_table
from controller.tables.calibration import CalibrationSummary


def render_calibration(console: Console, summary: CalibrationSummary) -> None:
    """Show the correction, its error, and the models one by one."""
    rows = [
        (
            model.name,
            format_ms(model.measured_ms),
            format_ms(model.predicted_ms),
            f"{100 * (model.predicted_ms / model.measured_ms - 1):+.1f} %",
            "" if model.left_out else "seen by the fit",
        )
        for model in summary.models
    ]
    title = f"whole models, batch {summary.batch}, {summary.sequence_length} tokens"
    print_table(console, title, ("model", "measured", "predicted", "error", ""), rows)
    apart = "".join(f", products of {name} by {scale:.3f}" for name, scale in summary.format_scales.items())
    if summary.other_scale is not None:
        apart += f", operators without weights by {summary.other_scale:.3f}"
    if summary.attention_scale is not None:
        apart += f", operators without weights of attention by {summary.attention_scale:.3f}"
    print_lines(
        console,
        f"operator times are multiplied by {summary.scale:.3f}{apart}; beside that an operator takes "
        f"{format_ms(summary.operator_overhead_ms)}, a change of number format {format_ms(summary.pair_overhead_ms)}, "
        f"a call {format_ms(summary.overhead_ms)}",
    )
    print_lines(
        console,
        f"error on models left out of the fit: median {summary.median_error_pct:.1f} %, largest "
        f"{summary.max_error_pct:.1f} %",
    )
    print_lines(console, f"{summary.table}: written in {format_seconds(summary.seconds)}", style="green")
