"""Turns errors into one clear message and an exit code. A traceback is for `--debug` only."""

import contextlib
import functools
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NoReturn, ParamSpec

import typer

from controller.cli.exit_codes import ExitCode
from controller.cli.signals import interrupted_by_sigterm
from controller.cli.text import clean, print_lines, stderr_console
from controller.errors import HeldError, PreflightError, UsageError
from controller.problems import JobError, mask_passwords

P = ParamSpec("P")

DEBUG: ContextVar[bool] = ContextVar("debug", default=False)
"""Whether errors show their traceback."""

_OWN_PACKAGES = ("controller", "workers", "evaluators", "search_spaces")
_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (JobError, ExitCode.USAGE),
    (UsageError, ExitCode.USAGE),
    (PreflightError, ExitCode.PREFLIGHT),
    (HeldError, ExitCode.HELD),
)


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code of an error.

    An error class of ours that is not named here tells its kind by where it stands: the packages below the controller
    raise on the model, its data or the table, the controller on what the user asked for or on what went wrong later.
    """
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    module = type(error).__module__
    if module.startswith("workers.export"):
        return ExitCode.NOT_VERIFIED
    if module.startswith("workers.recovery"):
        return ExitCode.FAILED
    if not _is_ours(error):
        return ExitCode.FAILED
    if not module.startswith("controller"):
        return ExitCode.PREFLIGHT
    return ExitCode.USAGE if isinstance(error, ValueError) else ExitCode.FAILED


def _is_ours(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in _OWN_PACKAGES


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Decorate a command so that it ends with a message and an exit code instead of a traceback.

    SIGTERM ends it as Ctrl-C does.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with interrupted_by_sigterm():
                command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            stop("interrupted", ExitCode.INTERRUPTED)
        except Exception as error:
            if DEBUG.get():
                print_lines(stderr_console(), mask_passwords(traceback.format_exc()))
            stop(_message(error), exit_code_of(error))

    return run


def stop(message: str, code: ExitCode, *, remedy: str = "") -> NoReturn:
    """Print a message in red, a remedy below it, and end the command."""
    print_lines(stderr_console(), message, style="red")
    if remedy:
        print_lines(stderr_console(), remedy)
    raise typer.Exit(int(code))


@contextlib.contextmanager
def resumable(kept: str, again: str | None = None) -> Iterator[None]:
    """End a command that is interrupted with what is kept, and with the command that goes on.

    Args:
        kept: What is kept of the work, a clause; what the interruption says itself goes before.
        again: The command that goes on; None for the same one.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:
        stop_resumable(str(interruption) or kept, again)


def stop_resumable(kept: str, again: str | None = None) -> NoReturn:
    """End a command as `resumable` does."""
    remedy = f"to go on: {again or shlex.join(['paretrim', *sys.argv[1:]])}"
    stop(f"interrupted; {kept}", ExitCode.INTERRUPTED, remedy=remedy)


def _message(error: Exception) -> str:
    # A KeyError shows its message in quotes.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = mask_passwords(text)
    if _is_ours(error):
        return text or type(error).__name__
    hint = "" if DEBUG.get() else "; run the command with --debug for the place (paretrim --debug ...)"
    return f"unexpected {type(error).__name__}: {clean(text, most=400)}{hint}"
