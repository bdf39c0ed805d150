"""What is compared: ONNX files and who made them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Side(StrEnum):
    """Whose a model is."""

    DENSE = "dense"
    PEER = "peer"
    OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A model that somebody made.

    Attributes:
        name: Name for people.
        side: Whose it is.
        path: The ONNX file; its weights are in it.
        made_in_s: Seconds that its making took, search included.
        note: What else there is to say of it.
    """

    name: str
    side: Side
    path: Path
    made_in_s: float
    note: str = ""

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A peer that made nothing.

    Attributes:
        name: Name of the peer.
        reason: Why not.
    """

    name: str
    reason: str
