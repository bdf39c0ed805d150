"""Log lines for people or for machines: plain text, or JSON with the ids of job, attempt and trial."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from controller.errors import UsageError
from controller.jobs.entrypoint import ATTEMPT_VARIABLE, JOB_ID_VARIABLE
from controller.problems import mask_passwords, show

LOG_VARIABLE = "PARETRIM_LOG"
"""Environment variable with the form: text (the default) or json."""
FORMS = ("text", "json")
_PACKAGES = ("controller", "workers", "evaluators", "search_spaces")
_FIELDS = ("study", "trial", "attempt")


def check_form(form: str) -> str:
    """Return the form of log lines if it is one.

    Raises:
        UsageError: It is not.
    """
    if form not in FORMS:
        raise UsageError(f"log lines are text or json; got {show(form)}; set {LOG_VARIABLE} or --log to one of them")
    return form


def wants_json(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether log lines are to be JSON.

    Raises:
        UsageError: The environment names another form.
    """
    return check_form(environment.get(LOG_VARIABLE) or FORMS[0]) == "json"


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, job, run of the job, and the fields given as
    `extra` (study, trial, attempt)."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        content = line_fields(record.levelname.lower(), record.name, record.getMessage())
        content |= {name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            content["error"] = mask_passwords(self.formatException(record.exc_info))
        return json.dumps(content)


def line_fields(level: str, logger: str, message: str) -> dict[str, Any]:
    """Return what every line has."""
    content: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "logger": logger,
        "message": mask_passwords(message),
    }
    if job := os.environ.get(JOB_ID_VARIABLE):
        content |= {"job": job, "run": int(os.environ.get(ATTEMPT_VARIABLE) or 1)}
    return content


def log_as_json() -> None:
    """Send what our packages log to stderr as JSON lines; asking twice changes nothing."""
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        if any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
            continue
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
