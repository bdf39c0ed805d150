"""Renews a lease in the background, and hears there what the controller is asked for."""

import logging
import threading

from sqlalchemy.exc import DBAPIError

from controller.storage.lease import LEASE_S, StudyLostError
from controller.storage.records import Controls, StudyRecord
from controller.storage.repository import Repository

_logger = logging.getLogger(__name__)

_RENEW_EVERY_S = LEASE_S / 10


class LeaseKeeper:
    """Keeps one study's lease alive from a thread of its own, however long a trial or the sampler takes.

    Args:
        repository: The database.
        study: The study, held by this controller.
        every_s: Seconds between two renewals; what is asked for is heard that late.
    """

    def __init__(self, repository: Repository, study: StudyRecord, *, every_s: float = _RENEW_EVERY_S) -> None:
        self._repository = repository
        self._study = study
        self._every_s = every_s
        self._ended = threading.Event()
        self._controls = study.controls
        self._lost: StudyLostError | None = None
        self._thread: threading.Thread | None = None

    @property
    def controls(self) -> Controls:
        """What was asked for, as last read."""
        return self._controls

    @property
    def lost(self) -> StudyLostError | None:
        """Who took the study away; None while it is held."""
        return self._lost

    def start(self) -> None:
        """Start to renew; a second call is no error."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="paretrim-lease", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Renew no more; the lease ends by itself unless it is released."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self._every_s)

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._controls = self._repository.renew(self._study)
            except StudyLostError as error:
                self._lost = error
                return
            except DBAPIError as error:
                # Whoever writes to the study waits for the database, and says so.
                _logger.debug("the lease was not renewed: %s", error.orig)
