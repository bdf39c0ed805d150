"""What an export is told of recovery; imports nothing heavy."""

from dataclasses import dataclass

from workers.recovery.config import RecoveryConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOptions:
    """Changes to the job's section on recovery.

    Attributes:
        epochs: Passes over the examples; None takes the job's.
        tune: Trainings with other learning rates and loss weights to choose from; 1 trains as the job says.
    """

    epochs: int | None = None
    tune: int = 1

    def apply(self, config: RecoveryConfig) -> RecoveryConfig:
        """The job's section with these changes."""
        return config if self.epochs is None else config.model_copy(update={"epochs": self.epochs})

    @property
    def words(self) -> str:
        """The options as they are written behind a command."""
        epochs = "" if self.epochs is None else f" --epochs {self.epochs}"
        return f" --recover{epochs}" + (f" --tune {self.tune}" if self.tune > 1 else "")
