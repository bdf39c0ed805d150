"""Leases: one controller at a time has a study, for as long as it says that it is there.

A lease ends by the database's clock. The fence, a number that grows with each controller, shuts out one that slept past
its end; so a lease never decides who may write, only whether another may take over.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from controller.errors import HeldError
from controller.storage.holder import Holder

T = TypeVar("T")

LEASE_S = 20.0
"""How long a controller counts as there since it was last heard of."""
_LOOK_EVERY_S = 0.5


class StudyLostError(RuntimeError):
    """Another controller has taken the study over; this one must not write to it any more."""


class StudyHeldError(HeldError):
    """Another controller has the study.

    Attributes:
        holder: That controller.
        expires: When its lease ends, by the database's clock (UTC).
    """

    def __init__(self, study: str, holder: Holder, since: datetime, expires: datetime) -> None:
        self.holder = holder
        self.expires = expires
        self._arguments = (study, holder, since, expires)
        super().__init__(
            f"one controller at a time may search study {study!r}; {holder} has it since "
            f"{since:%Y-%m-%d %H:%M:%S} UTC; stop that one first, or watch it"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self._arguments)


def take_when_free(take: Callable[[datetime | None], T], say: Callable[[str], None]) -> T:
    """Take a study; where a controller on another machine has it, wait until it is heard of or its lease ends.

    Args:
        take: Takes the study, also from a holder whose lease ends at the given moment; raises `StudyHeldError`.
        say: Told once that there is something to wait for.

    Raises:
        StudyHeldError: Its holder is alive.
    """
    seen: datetime | None = None
    began = time.monotonic()
    while True:
        # Where the database's clock was set back, a lease would seem to last for ever.
        outlived = seen is not None and time.monotonic() - began > LEASE_S + _LOOK_EVERY_S
        try:
            return take(seen if outlived else None)
        except StudyHeldError as error:
            if error.holder.is_near or seen not in (None, error.expires):
                raise
            if seen is None:
                say(f"waiting up to {LEASE_S:.0f} s: {error.holder} had the study, and may still be at work")
            seen = error.expires
        time.sleep(_LOOK_EVERY_S)
