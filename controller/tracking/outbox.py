"""The outbox: what the search wants MLflow to know, kept until MLflow has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem:
    """One message.

    Attributes:
        id: Position in the outbox; messages are replayed in this order.
        kind: A value of `controller.tracking.messages.Kind`.
        payload: Plain JSON, without NaN or infinity.
    """

    id: int
    kind: str
    payload: Mapping[str, Any]


class Outbox(Protocol):
    """Durable queue. `put` is called by the search, the rest by the tracker's thread: both at the same time."""

    def put(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Append a message; it is durable when this returns."""

    def pending(self, limit: int) -> Sequence[OutboxItem]:
        """The oldest messages that are not marked as sent, at most `limit`."""

    def mark_sent(self, ids: Sequence[int]) -> None:
        """Forget messages; ids already marked are no error."""
