"""What the exit status of a command means."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every command, with its meaning for `--help`."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        """Make a member of the number and its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 0, "done"
    FAILED = 1, "the run failed, or an error that Paretrim did not foresee; --debug shows where"
    USAGE = 2, "wrong arguments, or a job that is not valid"
    PREFLIGHT = 3, "the model, its data, the latency table or the database is not fit, or no policy can meet the bounds"
    NO_FEASIBLE_TRIAL = 4, "the search ended without a policy that meets the constraints"
    NOT_VERIFIED = 5, "the exported model is not what the search said; nothing was released"
    BELOW_CONSTRAINT = 6, "recheck: on the new data the model loses more quality than its constraint allows"
    CANNOT_TELL = 7, "recheck: the new data do not suffice to tell whether the model meets its constraint"
    HELD = 8, "another process searches the study, or measures the table; the message says which"
    INTERRUPTED = 130, "stopped by Ctrl-C or SIGTERM; everything finished is kept, and the command to go on is printed"


def exit_code_help() -> str:
    """Return all exit codes as paragraphs for an epilog."""
    return "\n\n".join(["Exit codes:", *(f"{int(code)}  {code.meaning}" for code in ExitCode)])
