"""Which versions an alias has stood for, in a form that a tag can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum

_MOST_CHARACTERS = 4500
"""MLflow takes 5,000 characters a tag."""


class Move(StrEnum):
    """How an alias came to a version."""

    REGISTERED = "registered"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    ELSEWHERE = "elsewhere"
    """It was set by another program, and found so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One change of an alias.

    Attributes:
        version: The version that it stood for from then on.
        move: How it came there.
        at: Time, UTC.
    """

    version: str
    move: Move
    at: str


@dataclass(frozen=True, slots=True)
class AliasHistory:
    """Changes of one alias, oldest first."""

    moves: tuple[AliasMove, ...] = ()

    @classmethod
    def read(cls, text: str | None, holder: str | None) -> AliasHistory:
        """Read a history, and bring it up to date.

        Args:
            text: Value of the tag; what is none counts as empty.
            holder: The version that the alias stands for now; None where it is not set.
        """
        history = cls(_moves(text))
        if holder is not None and history.holders()[-1:] != (holder,):
            return history.then(holder, Move.ELSEWHERE)
        return history

    def holders(self) -> tuple[str, ...]:
        """Versions that a rollback would come to, oldest first; the last one is the present holder."""
        found: list[str] = []
        for move in self.moves:
            if move.move is Move.ROLLED_BACK:
                while found and found[-1] != move.version:
                    found.pop()
            if found[-1:] != [move.version]:
                found.append(move.version)
        return tuple(found)

    def then(self, version: str, move: Move) -> AliasHistory:
        """The history with one more change, made now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return AliasHistory((*self.moves, AliasMove(version=version, move=move, at=now)))

    def text(self) -> str:
        """The history for a tag; the oldest changes are dropped where all do not fit."""
        entries = [asdict(move) for move in self.moves]
        while len(text := json.dumps(entries)) > _MOST_CHARACTERS:
            entries = entries[1:]
        return text


def _moves(text: str | None) -> tuple[AliasMove, ...]:
    try:
        entries: Sequence[dict[str, str]] = json.loads(text or "[]")
        return tuple(AliasMove(version=str(e["version"]), move=Move(e["move"]), at=str(e["at"])) for e in entries)
    except (ValueError, TypeError, KeyError):
        return ()
