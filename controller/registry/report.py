"""What commands on registered models hand to whoever shows it."""

from dataclasses import dataclass

from controller.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion(Record):
    """A version of a registered model.

    Attributes:
        name: Name of the model.
        version: Number of the version.
        alias: Alias that stands for it now; None where none was given.
        replaced: Version that the alias stood for before; None where it is new, or was this version's.
        study: Study that the version is from; None where the registry does not tell.
        trial: Trial of the study; likewise.
        serve: Commands that serve it.
        request: Command that asks it for an answer.
    """

    name: str
    version: str
    alias: str | None
    replaced: str | None = None
    study: str | None = None
    trial: int | None = None
    serve: str = ""
    request: str = ""
