"""What an export is told of an early exit; imports nothing heavy."""

from dataclasses import dataclass

from controller.errors import UsageError

DEFAULT_POINTS = 0.5
"""Quality that an early exit may lose on the search split unless said otherwise, in points of 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExitOptions:
    """An early exit is wanted.

    Attributes:
        tolerance_points: Quality on the search split that may be lost, in points of 100; 0 to 100.

    Raises:
        UsageError: The tolerance is out of its range.
    """

    tolerance_points: float = DEFAULT_POINTS

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance_points <= 100:
            raise UsageError(
                f"the tolerance of an early exit is 0 to 100 points; got {self.tolerance_points:g}; for example "
                f"--exit-tolerance {DEFAULT_POINTS:g}"
            )

    @property
    def tolerance(self) -> float:
        """The tolerance as a fraction."""
        return self.tolerance_points / 100

    @property
    def words(self) -> str:
        """The options as they are written behind a command."""
        return f" --early-exit --exit-tolerance {self.tolerance_points:g}"
