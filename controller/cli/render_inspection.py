"""Shows two fronts beside each other, and one policy as a strip over the model's depth."""

import shlex
from collections.abc import Sequence

from rich.console import Console

from controller.cli.drawing import bar, draws_blocks
from controller.cli.text import clean, format_interval, format_ms, format_size, print_lines, print_next, print_table
from controller.comparison import BestUnder, ComparedFront, Comparison
from controller.policy_report import PolicyReport, UnitStrip

_BAR = 16
_BITS = 8
_SHARE = 8
_LONGEST_NAME = 28
_WHOLE_BITS = 32
_MOST_DOMINATIONS = 12


def render_comparison(console: Console, report: Comparison) -> None:
    """Show two fronts beside each other; what does not compare is said first, and left out."""
    if report.apart:
        print_lines(console, report.apart, style="yellow")
    first, second = report.first, report.second
    fronts = (first, second)
    kinds = dict.fromkeys(kind for front in fronts for kind in front.counts.named)
    rows = [
        ("members of the front", *(str(front.members) for front in fronts)),
        ("trials", *(str(front.trials) for front in fronts)),
        *((f"  {kind}", *(str(front.counts.named.get(kind, 0)) for front in fronts)) for kind in kinds),
        ("probes", *(str(front.counts.probes) for front in fronts)),
        ("baselines", *(str(front.counts.baselines) for front in fronts)),
        ("hypervolume", *("" if front.hypervolume is None else f"{front.hypervolume:.4f}" for front in fronts)),
        ("covers of the other", *("" if front.coverage is None else f"{front.coverage:.0%}" for front in fronts)),
        (f"dense {report.metric}", *(f"{front.dense_quality:.4f}" for front in fronts)),
        ("dense latency", *(format_ms(front.dense_latency_ms) for front in fronts)),
    ]
    rows = [row for row in rows if any(row[1:])]
    print_table(console, f"{first.study} beside {second.study}", ("", first.study, second.study), rows)
    best = [(row.constraint, *_best(row)) for row in report.best]
    if best:
        print_table(console, "best member under a constraint", ("constraint", first.study, second.study), best)
    if report.reference:
        point = ", ".join(f"{name} {value:.4g}" for name, value in report.reference.items())
        print_lines(console, f"hypervolumes are measured from {point}")
    for sentence, studies in _latency_sentences(fronts).items():
        print_lines(console, sentence if len(studies) == len(fronts) else f"{studies[0]}: {sentence}")
    for domination in report.dominations[:_MOST_DOMINATIONS]:
        names = ", ".join(domination.dominates)
        print_lines(console, f"{domination.study} {domination.member} dominates {names}")
    if (left := len(report.dominations) - _MOST_DOMINATIONS) > 0:
        print_lines(console, f"and {left} more members dominate others; --json has all")
    if report.reference and not report.dominations:
        print_lines(console, "no member of one front dominates a member of the other")
    for note in report.notes:
        print_lines(console, f"note: {note}", style="yellow")
    if first.hypervolume is not None and second.hypervolume is not None:
        better = first if first.hypervolume >= second.hypervolume else second
        print_next(console, f"paretrim front {shlex.quote(better.study)} --pick knee")


def _latency_sentences(fronts: Sequence[ComparedFront]) -> dict[str, list[str]]:
    """How far latencies err, and of which studies that is said."""
    found: dict[str, list[str]] = {}
    for front in fronts:
        if front.latency_sentence:
            found.setdefault(front.latency_sentence, []).append(front.study)
    return found


def _best(row: BestUnder) -> tuple[str, str]:
    return _cell(row.shown, row.first, row.first_value), _cell(row.shown, row.second, row.second_value)


def _cell(shown: str, name: str | None, value: float | None) -> str:
    if name is None or value is None:
        return "none"
    return f"{format_ms(value) if shown == 'latency_ms' else f'{value:.4f}'} ({name})"


def render_policy(console: Console, report: PolicyReport) -> None:
    """Show a policy unit by unit: bars of what stays and of bits, and the share of the latency."""
    blocks = draws_blocks(console.encoding)
    quality = "no score" if report.quality is None else f"{report.metric} {report.quality:.4f}"
    print_lines(console, f"{report.study}, {report.name}: {quality}")
    print_lines(
        console,
        f"  latency {format_ms(report.latency_ms)}{format_interval(report.latency_low_ms, report.latency_high_ms)}"
        f"{_of_dense(report.latency_ms, report.dense_latency_ms)}",
    )
    print_lines(
        console, f"  size {format_size(report.size_bytes)}{_of_dense(report.size_bytes, report.dense_size_bytes)}"
    )
    width = min(_LONGEST_NAME, max((len(clean(unit.name)) for unit in report.units), default=4))
    most = max((unit.latency_share or 0.0 for unit in report.units), default=0.0)
    head = f"  {'unit'.ljust(width)}  {'keep'.ljust(_BAR)}  {'bits'.ljust(_BITS + 3)}  share of latency"
    print_lines(console, head)
    for unit in report.units:
        print_lines(console, "  " + _strip(unit, width=width, most=most, blocks=blocks))
    if report.latency_sentence:
        print_lines(console, report.latency_sentence)
    for note in report.notes:
        print_lines(console, f"note: {note}", style="yellow")
    study = shlex.quote(report.study)
    print_next(console, f"paretrim export {study} --trial {report.trial} --out {report.study}-{report.trial}")


def _of_dense(value: float, dense: float | None) -> str:
    return "" if not dense else f" ({value / dense:.2f} of dense)"


def _strip(unit: UnitStrip, *, width: int, most: float, blocks: bool) -> str:
    name = clean(unit.name, most=width).ljust(width)
    share = "" if unit.latency_share is None else f"{unit.latency_share:6.1%} "
    times = share + ("" if unit.latency_share is None or not most else _bar(unit.latency_share / most, _SHARE, blocks))
    if not unit.keep:
        return f"{name}  {'left out'.ljust(_BAR)}  {''.ljust(_BITS + 3)}  {times}".rstrip()
    keep = _bar(unit.keep / unit.groups, _BAR, blocks)
    bits = f"{_bar(unit.weight_bits / _WHOLE_BITS, _BITS, blocks)} {unit.weight_bits:2d}"
    return f"{name}  {keep}  {bits}  {times}  {unit.keep}/{unit.groups}, {clean(unit.format)}".rstrip()


def _bar(share: float, width: int, blocks: bool) -> str:
    return bar(share, width=width, blocks=blocks)
