"""Errors that end a command, by what the caller can do about them. The command line turns them into exit codes."""


class UsageError(ValueError):
    """What was asked for does not exist or makes no sense: an unknown study, a pick that can't be read."""


class PreflightError(ValueError):
    """The model, its data, the latency table or the database is not fit for the job."""


class HeldError(RuntimeError):
    """Another process is at what was asked for."""
