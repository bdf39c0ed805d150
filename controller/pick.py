"""Picks one member of a front by a rule in words: "fastest within 1% quality", "best under 5 ms", "knee"."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from controller.errors import UsageError
from controller.front import FrontMember, knee
from controller.job import Objective
from controller.study_view import size_text

RULE_FORMS = (
    "fastest within 1% quality",
    "best under 5 ms",
    "best under 20 MB",
    "smallest within 2%",
    "smallest under 8 ms within 2%",
    "knee",
)
"""One example of each form, for messages and help."""

_CLAUSE = re.compile(
    r"\s+(?:within\s+(?P<points>[\d.]+)\s*%(?:\s+quality)?|under\s+(?P<bound>[\d.]+)\s*(?P<unit>ms|mb))"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")


class PickError(UsageError):
    """The rule can't be read, or no member meets it."""


class Target(StrEnum):
    """What the picked member is the best in."""

    FASTEST = "fastest"
    SMALLEST = "smallest"
    BEST = "best"
    KNEE = "knee"


@dataclass(frozen=True, slots=True, kw_only=True)
class PickRule:
    """A rule, read.

    Attributes:
        target: What the picked member is the best in.
        max_drop: Largest loss of quality against the dense model, as a fraction of 1; None for any.
        max_latency_ms: Largest latency; None for any.
        max_size_bytes: Largest size; None for any.
    """

    target: Target
    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_size_bytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """A member and why it was chosen, in one sentence."""

    member: FrontMember
    explanation: str


def parse_pick(text: str) -> PickRule:
    """Read a rule. Case and extra spaces carry no meaning; 1% is 0.01 of the metric, not a hundredth of its value.

    Raises:
        PickError: Not one of the forms; the message lists them.
    """
    rule = " ".join(text.lower().split())
    if rule == Target.KNEE:
        return PickRule(target=Target.KNEE)
    head, _, _ = rule.partition(" ")
    rest = rule[len(head) :]
    if head not in (Target.FASTEST, Target.SMALLEST, Target.BEST):
        raise _unknown(text)
    bounds: dict[str, float] = {}
    while rest:
        clause = _CLAUSE.match(rest)
        if clause is None:
            raise _unknown(text)
        key, value = _read_clause(clause, text)
        if key in bounds:
            raise _unknown(text)
        bounds[key] = value
        rest = rest[clause.end() :]
    return PickRule(
        target=Target(head),
        max_drop=bounds.get("max_drop"),
        max_latency_ms=bounds.get("max_latency_ms"),
        max_size_bytes=bounds.get("max_size_bytes"),
    )


def _read_clause(clause: re.Match[str], text: str) -> tuple[str, float]:
    digits = clause["points"] or clause["bound"]
    if not _NUMBER.fullmatch(digits):
        raise _unknown(text)
    if clause["points"]:
        return "max_drop", float(digits) / 100
    if clause["unit"] == "ms":
        return "max_latency_ms", float(digits)
    return "max_size_bytes", float(digits) * 1e6


def _unknown(text: str) -> PickError:
    forms = "; ".join(f'"{form}"' for form in RULE_FORMS)
    return PickError(f"a pick has one of the forms {forms}; got {text[:80]!r}")


def pick(text: str, front: Sequence[FrontMember], *, dense: FrontMember, objectives: Sequence[Objective]) -> Picked:
    """Pick a member of the front.

    Args:
        text: The rule.
        front: Members that none dominates.
        dense: The dense model's scores, whether or not it is on the front.
        objectives: What spans the front, for the knee.

    Raises:
        PickError: The rule can't be read, the front is empty, or no member meets the rule; the message then names
            the member that comes closest.
    """
    rule = parse_pick(text)
    if not front:
        raise PickError(f"{text!r} needs a front to pick from; the study has no scored policy yet")
    if rule.target is Target.KNEE:
        member = knee(front, objectives)
        why = f"it is where the front of {len(front)} bends most"
    else:
        allowed = [m for m in front if _broken(m, rule, dense) <= 0]
        if not allowed:
            raise _unreachable(text, rule, front, dense)
        member = min(allowed, key=_ORDER[rule.target])
        where = _bounds_text(rule, dense)
        why = f"the {_SUPERLATIVE[rule.target]} of {len(allowed)} front members" + (f" with {where}" if where else "")
    return Picked(member=member, explanation=f"{member.name}: {why}; {_scores_text(member, dense)}")


_ORDER: dict[Target, Callable[[FrontMember], tuple[float, ...]]] = {
    Target.FASTEST: lambda m: (m.latency_ms, -m.quality, m.size_bytes, m.number),
    Target.SMALLEST: lambda m: (m.size_bytes, -m.quality, m.latency_ms, m.number),
    Target.BEST: lambda m: (-m.quality, m.latency_ms, m.size_bytes, m.number),
}
_SUPERLATIVE = {Target.FASTEST: "fastest", Target.SMALLEST: "smallest", Target.BEST: "best in quality"}
# Qualities are means of few decimal digits: 0.92 - 0.91 must not exceed 0.01 by rounding.
_SLACK = 1e-9


def _broken(member: FrontMember, rule: PickRule, dense: FrontMember) -> float:
    """Sum of what the member breaks: points of quality, and costs relative to their bounds."""
    broken = 0.0
    if rule.max_drop is not None:
        broken += max(0.0, dense.quality - member.quality - rule.max_drop - _SLACK)
    if rule.max_latency_ms is not None:
        broken += max(0.0, member.latency_ms - rule.max_latency_ms) / max(rule.max_latency_ms, _SLACK)
    if rule.max_size_bytes is not None:
        broken += max(0.0, member.size_bytes - rule.max_size_bytes) / max(rule.max_size_bytes, _SLACK)
    return broken


def _unreachable(text: str, rule: PickRule, front: Sequence[FrontMember], dense: FrontMember) -> PickError:
    nearest = min(front, key=lambda m: (_broken(m, rule, dense), _ORDER[rule.target](m)))
    return PickError(
        f"no front member has {_bounds_text(rule, dense)}, as {text!r} asks; "
        f"the nearest is {nearest.name}: {_scores_text(nearest, dense)}"
    )


def _bounds_text(rule: PickRule, dense: FrontMember) -> str:
    parts = []
    if rule.max_drop is not None:
        least = dense.quality - rule.max_drop
        parts.append(f"quality at least {least:.4g} ({100 * rule.max_drop:g} points below dense)")
    if rule.max_latency_ms is not None:
        parts.append(f"latency at most {rule.max_latency_ms:.4g} ms")
    if rule.max_size_bytes is not None:
        parts.append(f"size at most {size_text(int(rule.max_size_bytes))}")
    return " and ".join(parts)


def _scores_text(member: FrontMember, dense: FrontMember) -> str:
    drop = 100 * (dense.quality - member.quality)
    against = (
        "equal to dense" if abs(drop) < 1e-7 else f"{abs(drop):.2f} points {'below' if drop > 0 else 'above'} dense"
    )
    return (
        f"quality {member.quality:.4g} ({against}), latency {member.latency_ms:.4g} ms "
        f"({member.latency_ms / dense.latency_ms:.2f} of dense), size {size_text(member.size_bytes)} "
        f"({member.size_bytes / dense.size_bytes:.2f} of dense)"
    )
