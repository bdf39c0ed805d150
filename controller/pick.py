"""Picks one member of a front by a rule in words: "fastest within 1% quality", "best under 5 ms", "knee"."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from controller.errors import UsageError
from controller.front import FrontMember, knee_order
from controller.job import Objective
from controller.study_view import size_text

RULE_FORMS = (
    "fastest within 1% quality",
    "best under 5 ms",
    "best under 20 MB",
    "best under 2 mJ",
    "best under 300 MB memory",
    "smallest within 2%",
    "smallest under 8 ms within 2%",
    "weighted alpha=0.7",
    "knee",
    "trial 17",
)
"""One example of each form, for messages and help."""

_CLAUSE = re.compile(
    r"\s+(?:within\s+(?P<points>[\d.]+)\s*%(?:\s+quality)?|under\s+(?P<bound>[\d.]+)\s*(?P<unit>ms|mj|mb(?P<memory>\s+memory)?))"
)
_WEIGHTED = re.compile(r"weighted\s+alpha\s*=?\s*(?P<alpha>[\d.]+)")
_TRIAL = re.compile(r"trial\s+(?P<number>\d{1,9})")
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")


class PickError(UsageError):
    """The rule can't be read, or no member meets it."""


class Target(StrEnum):
    """What the picked member is the best in."""

    FASTEST = "fastest"
    SMALLEST = "smallest"
    BEST = "best"
    KNEE = "knee"
    WEIGHTED = "weighted"
    """The largest alpha * quality + (1 - alpha) * saving; see `trade_off`."""
    TRIAL = "trial"
    """The one with a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PickRule:
    """A rule, read.

    Attributes:
        target: What the picked member is the best in.
        max_drop: Largest loss of quality against the dense model, as a fraction of 1; None for any.
        max_latency_ms: Largest latency; None for any.
        max_size_bytes: Largest size; None for any.
        max_energy_mj: Largest energy; None for any.
        max_peak_memory_bytes: Largest peak memory; None for any.
        alpha: Weight of quality against savings, 0 to 1; None where nothing is weighted.
        trial: Number of the trial; None for any.
    """

    target: Target
    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_size_bytes: float | None = None
    max_energy_mj: float | None = None
    max_peak_memory_bytes: float | None = None
    alpha: float | None = None
    trial: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """A member and why it was chosen.

    Attributes:
        member: The member.
        runner_up: What comes next by the rule; None where there is no other.
        explanation: Why, in one sentence: what it scores, what comes next, and what it gives up against that.
    """

    member: FrontMember
    runner_up: FrontMember | None = None
    explanation: str


def parse_pick(text: str) -> PickRule:
    """Read a rule. Case and extra spaces carry no meaning; 1% is 0.01 of the metric, not a hundredth of its value.

    Raises:
        PickError: Not one of the forms; the message lists them.
    """
    rule = " ".join(text.lower().split())
    if rule == Target.KNEE:
        return PickRule(target=Target.KNEE)
    if numbered := _TRIAL.fullmatch(rule):
        return PickRule(target=Target.TRIAL, trial=int(numbered["number"]))
    if weighted := _WEIGHTED.fullmatch(rule):
        return PickRule(target=Target.WEIGHTED, alpha=_read_alpha(weighted["alpha"], text))
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
        max_energy_mj=bounds.get("max_energy_mj"),
        max_peak_memory_bytes=bounds.get("max_peak_memory_bytes"),
    )


def _read_alpha(digits: str, text: str) -> float:
    if not _NUMBER.fullmatch(digits):
        raise _unknown(text)
    if float(digits) > 1:
        raise PickError(
            f"alpha weighs quality against savings and lies between 0 and 1; got {digits[:20]} in {text[:80]!r}"
        )
    return float(digits)


def _read_clause(clause: re.Match[str], text: str) -> tuple[str, float]:
    digits = clause["points"] or clause["bound"]
    if not _NUMBER.fullmatch(digits):
        raise _unknown(text)
    if clause["points"]:
        return "max_drop", float(digits) / 100
    if clause["unit"] == "ms":
        return "max_latency_ms", float(digits)
    if clause["unit"] == "mj":
        return "max_energy_mj", float(digits)
    return "max_peak_memory_bytes" if clause["memory"] else "max_size_bytes", float(digits) * 1e6


def _unknown(text: str) -> PickError:
    forms = "; ".join(f'"{form}"' for form in RULE_FORMS)
    return PickError(f"a pick has one of the forms {forms}; got {text[:80]!r}")


def pick(
    text: str,
    front: Sequence[FrontMember],
    *,
    dense: FrontMember,
    objectives: Sequence[Objective],
    chance_quality: float = 0.0,
    others: Sequence[FrontMember] = (),
) -> Picked:
    """Pick a member of the front.

    Args:
        text: The rule.
        front: Members that none dominates.
        dense: The dense model's scores, whether or not it is on the front.
        objectives: What spans the front, for the knee and for weighted savings.
        chance_quality: Quality of guessing, for weighted quality.
        others: Scored policies beside the front, which a rule can name by their trial.

    Raises:
        PickError: The rule can't be read, the front is empty, or no member meets the rule; the message then names
            the member that comes closest.
    """
    rule = parse_pick(text)
    if not front:
        raise PickError(f"{text!r} needs a front to pick from; the study has no scored policy yet")
    if rule.target is Target.TRIAL:
        return _numbered(rule, front, others, dense)
    if rule.target is Target.KNEE:
        ranked = knee_order(front, objectives)
        why = f"it is where the front of {len(front)} bends most"
    elif rule.target is Target.WEIGHTED:
        assert rule.alpha is not None
        weights = {m.number: trade_off(m, rule.alpha, dense, objectives, chance_quality) for m in front}
        ranked = sorted(front, key=lambda m: (-weights[m.number], -m.quality, m.number))
        why = _weighted_text(rule.alpha, [weights[m.number] for m in ranked[:2]], objectives)
    else:
        ranked = sorted((m for m in front if _broken(m, rule, dense) <= 0), key=_ORDER[rule.target])
        if not ranked:
            raise _unreachable(text, rule, front, dense)
        where = _bounds_text(rule, dense)
        why = f"the {_SUPERLATIVE[rule.target]} of {len(ranked)} front members" + (f" with {where}" if where else "")
    member, runner_up = ranked[0], ranked[1] if len(ranked) > 1 else None
    explanation = f"{member.name}: {why}; {_scores_text(member, dense)}; {_against(member, runner_up)}"
    return Picked(member=member, runner_up=runner_up, explanation=explanation)


def trade_off(
    member: FrontMember,
    alpha: float,
    dense: FrontMember,
    objectives: Sequence[Objective],
    chance_quality: float = 0.0,
) -> float:
    """Weigh a member's quality against what it saves: alpha * quality + (1 - alpha) * saving.

    Quality is that above chance, in units of the dense model's; the saving is the mean over the cost objectives of
    what is saved, in units of the dense model's cost. Dense has alpha, and a policy that loses nothing and costs
    nothing 1.

    Args:
        member: The member.
        alpha: Weight of quality, 0 to 1.
        dense: The dense model's scores.
        objectives: What spans the front.
        chance_quality: Quality of guessing, below the dense model's.
    """
    quality = (member.quality - chance_quality) / (dense.quality - chance_quality)
    savings = [1 - member.value(o) / dense.value(o) for o in objectives if o is not Objective.QUALITY]
    return alpha * quality + (1 - alpha) * sum(savings) / len(savings)


def _weighted_text(alpha: float, best: Sequence[float], objectives: Sequence[Objective]) -> str:
    costs = " and ".join(_COST_WORDS[o] for o in objectives if o is not Objective.QUALITY)
    beside = f" (next: {best[1]:.4f})" if len(best) > 1 else ""
    return (
        f"the largest trade-off score, {best[0]:.4f}{beside}, of {alpha:g} * quality + {1 - alpha:g} * saving, where "
        f"quality is that above chance as a share of the dense model's, and saving the share of its {costs} that is "
        "saved"
    )


def _numbered(
    rule: PickRule, front: Sequence[FrontMember], others: Sequence[FrontMember], dense: FrontMember
) -> Picked:
    """Take the member with a number, on the front or beside it."""
    member = next((m for m in (*front, *others) if m.number == rule.trial), None)
    if member is None:
        on_front = ", ".join(str(m.number) for m in front)
        raise PickError(f"trial {rule.trial} must have a score; it has none; the front has trials {on_front}")
    if any(m.number == member.number for m in front):
        return Picked(member=member, explanation=f"{member.name}: as asked; {_scores_text(member, dense)}")
    return Picked(
        member=member,
        explanation=f"{member.name}: as asked, though it is not on the front; {_scores_text(member, dense)}",
    )


def _against(member: FrontMember, runner_up: FrontMember | None) -> str:
    """What comes next, and what the member gives up and gains against it."""
    if runner_up is None:
        return "no other member meets the rule"
    lost: list[str] = []
    won: list[str] = []
    for text, change in (
        (f"{100 * abs(runner_up.quality - member.quality):.2f} points", runner_up.quality - member.quality),
        (f"{abs(member.latency_ms - runner_up.latency_ms):.4g} ms", member.latency_ms - runner_up.latency_ms),
        (size_text(abs(member.size_bytes - runner_up.size_bytes)), member.size_bytes - runner_up.size_bytes),
    ):
        if abs(change) > _SLACK:
            (lost if change > 0 else won).append(text)
    against = f"runner-up {runner_up.name}, against which it "
    if not lost and not won:
        return against + "gives up nothing: they score alike"
    gives_up = f"gives up {' and '.join(lost)}" if lost else "gives up nothing"
    return against + gives_up + (f" and gains {' and '.join(won)}" if won else "")


_ORDER: dict[Target, Callable[[FrontMember], tuple[float, ...]]] = {
    Target.FASTEST: lambda m: (m.latency_ms, -m.quality, m.size_bytes, m.number),
    Target.SMALLEST: lambda m: (m.size_bytes, -m.quality, m.latency_ms, m.number),
    Target.BEST: lambda m: (-m.quality, m.latency_ms, m.size_bytes, m.number),
}
_COST_WORDS = {
    Objective.LATENCY_MS: "latency",
    Objective.SIZE_BYTES: "size",
    Objective.ENERGY_MJ: "energy",
    Objective.PEAK_MEMORY_BYTES: "peak memory",
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
    further = ((Objective.ENERGY_MJ, rule.max_energy_mj), (Objective.PEAK_MEMORY_BYTES, rule.max_peak_memory_bytes))
    for objective, bound in further:
        if bound is not None:
            broken += max(0.0, member.value(objective) - bound) / max(bound, _SLACK)
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
    if rule.max_energy_mj is not None:
        parts.append(f"energy at most {rule.max_energy_mj:.4g} mJ")
    if rule.max_peak_memory_bytes is not None:
        parts.append(f"peak memory at most {size_text(int(rule.max_peak_memory_bytes))}")
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
