"""Who a job and its study belong to."""

import getpass
import os

OWNER_VARIABLE = "PARETRIM_OWNER"
"""Names who submitted a job to the search that runs for it."""


def this_user() -> str:
    """The user of this process; empty where nobody knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return ""


def owner() -> str:
    """Who the study of this process belongs to: whoever submitted its job, else the user; empty where nobody knows."""
    return os.environ.get(OWNER_VARIABLE) or this_user()
