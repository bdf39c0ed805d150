"""Prints for terminals and pipes: colour for the one, plain lines for the other, and harmless text for both."""

import contextlib
import json
import math
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Control characters, invisible formatting (text direction among it), surrogates, and separators that break lines.
_HARMFUL = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def clean(text: object, *, most: int = 200) -> str:
    """Return text on one line, without control characters, cut to a length.

    Args:
        text: Anything; names, metrics and messages may come from a stranger's model or data.
        most: Largest number of characters.
    """
    harmless = "".join(" " if c in "\n\t" else c for c in str(text) if c in "\n\t" or not _is_harmful(c))
    return harmless if len(harmless) <= most else harmless[: most - 3] + "..."


def _is_harmful(character: str) -> bool:
    return unicodedata.category(character) in _HARMFUL


@contextlib.contextmanager
def stdout_for_results() -> Iterator[None]:
    """Send what libraries print to stderr, so that stdout holds results only."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def stdout_console() -> Console:
    """Return a console for results. Colours follow NO_COLOR and whether anybody watches."""
    return Console(highlight=False, markup=False, emoji=False)


def stderr_console() -> Console:
    """Return a console for progress and errors."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_lines(console: Console, text: str, *, style: str = "") -> None:
    """Print text line by line, each cleaned; a terminal wraps long lines, a pipe gets them whole."""
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" "))]
        console.print(Text(indent + clean(line.lstrip(" "), most=2000), style=style), soft_wrap=True)


def print_next(console: Console, *commands: str) -> None:
    """Print which commands come next, a line each."""
    for command in commands:
        print_lines(console, f"next: {command}", style="dim")


def print_json(content: dict[str, Any]) -> None:
    """Print a result as JSON, and nothing else, to stdout."""
    typer.echo(json.dumps(content, indent=2, allow_nan=False))


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn on a terminal, aligned columns in a pipe. The first column holds text, others figures."""
    head, *cells = [[clean(cell, most=60) for cell in row] for row in (columns, *rows)]
    if console.is_terminal:
        table = Table(title=Text(clean(title)), title_justify="left")
        for index, column in enumerate(head):
            table.add_column(Text(column), justify="left" if index == 0 else "right", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    widths = [max(len(line[index]) for line in [head, *cells]) for index in range(len(head))]
    print_lines(console, title)
    for line in [head, *cells]:
        first, rest = line[0].ljust(widths[0]), [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        print_lines(console, "  ".join(["", first, *rest]))


def format_ms(latency_ms: float | None) -> str:
    """Format a latency in milliseconds."""
    return "unknown" if latency_ms is None else f"{latency_ms:.3g} ms" if latency_ms < 1000 else f"{latency_ms:,.0f} ms"


def format_interval(low_ms: float | None, high_ms: float | None) -> str:
    """Format the bounds of a latency behind it: " (4.8 ms to 5.4 ms)"; nothing where they are not known."""
    return "" if low_ms is None or high_ms is None else f" ({format_ms(low_ms)} to {format_ms(high_ms)})"


def format_size(size_bytes: float | None) -> str:
    """Format a size in the decimal unit that fits."""
    if size_bytes is None:
        return "unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def format_seconds(seconds: float | None) -> str:
    """Format a duration in the one or two units that matter."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_count(count: int) -> str:
    """Format a whole number, from ten million on as a power of ten."""
    if abs(count) < 10_000_000:
        return f"{count:,}"
    exponent = math.log10(abs(count))
    return f"{'-' if count < 0 else ''}{10 ** (exponent % 1):.1f}e{int(exponent)}"
