"""Says in sentences why a policy takes the time that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controller.explanation.report import Finding
from evaluators.latency.breakdown import Breakdown
from evaluators.latency.correction import PAIRS, PRODUCTS
from evaluators.latency.idle_choices import LITTLE, IdleChoice, IdleChoices, IdleKind
from evaluators.latency.workload import OperatorKind
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice

_NAMED = 3
_OTHERS = frozenset(OperatorKind) - PRODUCTS - PAIRS


def choice_text(choice: Choice, groups: int) -> str:
    """A choice in words: "keep 6 of 12, w8a8"."""
    return f"keep {choice.keep} of {groups}, {choice.format}" if choice.keep else "left out"


def names_text(names: Sequence[str]) -> str:
    """The first few of some names: "a, b, c and 2 more"."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def sentences_of(name: str, here: Breakdown, dense: Breakdown, *, size_ratio: float) -> Iterator[str]:
    """Yield what the figures of a policy say beside those of the dense model.

    Args:
        name: Name of the policy.
        here: Where its time goes.
        dense: Where that of the dense model goes.
        size_ratio: Its bytes over those of the dense model.
    """
    ratio = here.latency_ms / dense.latency_ms
    yield f"{name} has {size_ratio:.2f} of the dense model's bytes and takes {ratio:.2f} of its time"
    if ratio > size_ratio:
        yield "it is smaller than it is fast: bytes go down with every weight, time only with what kernels have to do"
    fixed_ms = here.outside.latency_ms + here.overhead_ms
    dense_fixed_ms = dense.outside.latency_ms + dense.overhead_ms
    yield (
        f"{fixed_ms:.3g} ms lie outside units or are the call itself, where no choice of a unit counts: "
        f"{fixed_ms / here.latency_ms:.0%} of its time, {dense_fixed_ms / dense.latency_ms:.0%} of the dense model's"
    )
    yield _fall("products with weights", here.latency_ms_of(PRODUCTS), dense.latency_ms_of(PRODUCTS))
    others = _fall("all other operators", here.latency_ms_of(_OTHERS), dense.latency_ms_of(_OTHERS))
    yield f"{others}: no format makes that faster, and pruning only in part"
    recoding_ms = here.latency_ms_of(PAIRS)
    if recoding_ms > 0:
        yield (
            f"changing between float and integer takes {recoding_ms:.3g} ms, {recoding_ms / here.latency_ms:.0%} of "
            "its time, which the dense model does not do"
        )
    if here.correction_ms:
        yield (
            f"all these times are those inside a whole model, {here.correction_ms:+.3g} ms against the operators by "
            "themselves"
        )


def _fall(what: str, now_ms: float, before_ms: float) -> str:
    share = "" if before_ms <= 0 else f" ({now_ms / before_ms:.0%} of it)"
    return f"{what}: {now_ms:.3g} ms where the dense model takes {before_ms:.3g} ms{share}"


def finding_of(idle: IdleChoice, groups: int, *, dense_ms: float, tolerance: float) -> Finding:
    """Put a choice that buys no time into words.

    Args:
        idle: The choice.
        groups: Groups of the dense unit.
        dense_ms: Latency of the dense model.
        tolerance: Relative difference of times that counts as none.
    """
    chosen, better = choice_text(idle.choice, groups), choice_text(idle.better, groups)
    match idle.kind:
        case IdleKind.WIDER_COSTS_THE_SAME:
            sentence = (
                f"{idle.unit}: {chosen} takes {idle.unit_ms:.3g} ms, and keeping {idle.better.keep} costs the same "
                f"here (within {tolerance:.1%}){_step(idle)}: this pruning buys no time"
            )
        case IdleKind.FORMAT_IS_SLOWER:
            sentence = (
                f"{idle.unit}: {idle.choice.format} is slower here than {idle.better.format}, by {-idle.saved_ms:.3g} "
                f"of {idle.unit_ms:.3g} ms, and has {_bits(idle)}"
            )
        case IdleKind.PRUNING_SAVES_LITTLE:
            sentence = (
                f"{idle.unit}: {chosen} instead of {groups} saves {idle.saved_ms:.3g} ms, "
                f"{idle.saved_ms / dense_ms:.1%} of the dense model's latency and less than {LITTLE:.0%}"
            )
    return Finding(
        unit=idle.unit, kind=idle.kind, choice=chosen, better=better, saved_ms=idle.saved_ms, sentence=sentence
    )


def verdict_of(found: IdleChoices, *, is_dense: bool) -> str:
    """Say what no finding says: that every choice buys time, that none was made, or of which units nothing is known.

    Args:
        found: What was found.
        is_dense: Whether the policy is the dense model.
    """
    if is_dense and not found.idle:
        return "the dense model leaves nothing out and keeps its format: it has made no choice that could buy time"
    if found.untold:
        return (
            f"whether {'all other choices buy' if found.idle else 'every choice buys'} time is not known: the table "
            f"can't price what else could be chosen for {names_text(found.untold)}"
        )
    return "" if found.idle else "every choice of the policy buys time on this target"


def _bits(idle: IdleChoice) -> str:
    chosen, better = (FORMATS.get(choice.format).weight_bits for choice in (idle.choice, idle.better))
    return "fewer bits: it buys bytes and no time" if chosen < better else "as many bits a weight: it buys no time"


def _step(idle: IdleChoice) -> str:
    """Which width kernels like better, where that tells the two apart."""
    steps = [step for step in (64, 32, 16) if idle.width % step and idle.better_width % step == 0]
    return f"; its width {idle.width} is no multiple of {steps[0]}, {idle.better_width} is" if steps else ""
