"""Why MLflow did not take a message, in words that name the remedy."""

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from controller.tracking.address import without_credentials
from controller.tracking.messages import TrackingError

_LONGEST_CAUSE = 300


class TroubleKind(StrEnum):
    """What can be done about it."""

    DOWN = "down"
    """Try again later."""
    DENIED = "denied"
    """A person must change something."""
    MESSAGE = "message"
    """This one message will never be taken."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One reason and its words.

    Attributes:
        kind: What can be done.
        text: For people, without credentials.
    """

    kind: TroubleKind
    text: str


def diagnose(error: Exception, uri: str) -> Trouble:
    """Tell what stands in the way.

    Args:
        error: What was raised while messages were read or sent.
        uri: Tracking URI.

    Returns:
        Its kind, and a text that names cause and remedy.
    """
    where = f"MLflow at {without_credentials(uri)}"
    cause = _shorten(without_credentials(str(error)))
    if isinstance(error, TrackingError):
        return Trouble(TroubleKind.DENIED, cause)
    status = _http_status(error)
    if status == 401:
        return Trouble(
            TroubleKind.DENIED,
            f"{where} wants credentials (401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN. The search goes on; its results wait in the database.",
        )
    if status == 403:
        return Trouble(TroubleKind.DENIED, _forbidden(where, uri, cause))
    if status == 404 and "error code 404" in cause:
        return Trouble(
            TroubleKind.DENIED, f"{where} has no MLflow API (404); check mlflow.tracking_uri in the job. {cause}"
        )
    malformed = status is None and isinstance(error, (ValueError, KeyError, TypeError, FileNotFoundError))
    if malformed or (status is not None and 400 <= status < 500 and status not in (408, 429)):
        return Trouble(TroubleKind.MESSAGE, cause)
    return Trouble(
        TroubleKind.DOWN,
        f"{where} cannot be written now; the search goes on, its results wait in the database and are sent later. "
        f"{cause}",
    )


def _forbidden(where: str, uri: str, cause: str) -> str:
    if "Invalid Host header" in cause:
        host = urlsplit(uri).netloc.rpartition("@")[2]
        return (
            f"{where} does not answer to this host name (403): start the server with --allowed-hosts {host}. "
            "The search goes on; its results wait in the database."
        )
    return (
        f"{where} refuses the account (403): give it the right to write the experiment, use other credentials "
        "(MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN), or, where a proxy stands "
        f"before it, have the server's --allowed-hosts name it. {cause}"
    )


def _http_status(error: Exception) -> int | None:
    """The HTTP status behind an error of MLflow or of its transport; None where there is none."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    if isinstance(error, RequestException):
        return error.response.status_code if error.response is not None else 503
    return None


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_CAUSE else line[: _LONGEST_CAUSE - 1] + "…"
