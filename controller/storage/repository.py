"""What is done to studies and trials, each in one short transaction."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import DBAPIError

from controller.storage.attempts import (
    attempt_record,
    change_trial,
    end_attempt,
    interrupt_attempt,
    open_attempt,
    put_row,
    trial_of,
    why_not,
)
from controller.storage.batch import Batch
from controller.storage.engine import reading
from controller.storage.fence import lease_values, pass_fence, refuse_held, study_row
from controller.storage.holder import Holder
from controller.storage.lease import StudyLostError as StudyLostError
from controller.storage.patience import DatabaseGoneError, Patience
from controller.storage.quality import QualityStore, keep_quality
from controller.storage.records import (
    AttemptOutcome,
    AttemptRecord,
    Controls,
    StudyRecord,
    StudyState,
    TellOutcome,
    TrialRecord,
    TrialState,
    canonical_json,
)
from controller.storage.rows import controls_of, score_values, study_record, trial_record, trial_values
from controller.storage.schema import ATTEMPTS, STUDIES, STUDY_SCHEMA_VERSION, TRIALS
from evaluators.scores import Quality

T = TypeVar("T")

_PAGE = 500
_NO_HOLDER = {"holder_json": None, "held_since": None, "lease_expires_at": None}
_NO_WISHES = {"stop_requested_at": None, "wanted_parallel": None, "wanted_trials": None}


class Repository:
    """Studies and trials of a database.

    Every write to a study names the fence under which its controller took it: a controller that was replaced while
    it slept can't spoil what its successor does. Every write also renews the controller's lease.

    A database that does not answer is asked again, so each of these may take as long as `patience` has it.

    Args:
        engine: From `open_database`.
        patience: How an outage is borne; by default one of 20 seconds.
    """

    def __init__(self, engine: Engine, patience: Patience | None = None) -> None:
        self.engine = engine
        self.patience = patience or Patience(give_up_s=20.0)
        self._batch: Batch | None = None

    def studies(self) -> list[StudyRecord]:
        """Return all studies, the newest first."""
        query = select(STUDIES).order_by(STUDIES.c.created_at.desc(), STUDIES.c.name)
        return self._read(lambda connection: [study_record(row) for row in connection.execute(query).mappings()])

    def find_study(self, name: str) -> StudyRecord | None:
        """Return the study of that name, or None."""
        query = select(STUDIES).where(STUDIES.c.name == name)

        def find(connection: Connection) -> StudyRecord | None:
            row = connection.execute(query).mappings().one_or_none()
            return None if row is None else study_record(row)

        return self._read(find)

    def trials(self, study_id: str) -> list[TrialRecord]:
        """Return all trials of a study in order of their numbers."""
        return [trial for page in self.pages(study_id) for trial in page]

    def pages(self, study_id: str, size: int = _PAGE) -> Iterator[list[TrialRecord]]:
        """Yield all trials of a study in order of their numbers, a page at a time."""
        first = -1
        while True:
            query = (
                select(TRIALS)
                .where(TRIALS.c.study_id == study_id, TRIALS.c.number > first)
                .order_by(TRIALS.c.number)
                .limit(size)
            )
            page = self._read(lambda connection: [trial_record(r) for r in connection.execute(query).mappings()])  # noqa: B023  # called at once
            if page:
                yield page
            if len(page) < size:
                return
            first = page[-1].number

    def attempts(self, study_id: str) -> list[AttemptRecord]:
        """Return all attempts of a study, by trial and then in the order in which they were made."""
        query = select(ATTEMPTS).where(ATTEMPTS.c.study_id == study_id).order_by(ATTEMPTS.c.number, ATTEMPTS.c.ordinal)
        return self._read(lambda connection: [attempt_record(row) for row in connection.execute(query).mappings()])

    def quality_store(self, evaluation_digest: str) -> QualityStore:
        """Return the scores that were paid for under this evaluation."""
        return QualityStore(self.engine, evaluation_digest, self.patience)

    def create_study(
        self,
        *,
        name: str,
        job_digest: str,
        job: Mapping[str, Any],
        fixed_json: str,
        space_digest: str,
        objectives: Sequence[str],
        trials: Iterable[TrialRecord] = (),
        holder: Holder | None = None,
    ) -> StudyRecord:
        """Create a study together with its first trials; it is then held by this controller.

        Raises:
            IntegrityError: There is one of that name.
        """
        study_id, now = uuid.uuid4().hex[:12], datetime.now(UTC)
        content = {
            "id": study_id,
            "name": name,
            "schema_version": STUDY_SCHEMA_VERSION,
            "state": StudyState.RUNNING,
            "job_digest": job_digest,
            "job_json": canonical_json(dict(job)),
            "fixed_json": fixed_json,
            "space_digest": space_digest,
            "objectives_json": canonical_json(list(objectives)),
            "fence": 1,
            "created_at": now,
            "updated_at": now,
        }
        rows = [trial_values(study_id, trial) for trial in trials]

        def create(retried: bool) -> StudyRecord:
            with self.engine.begin() as connection:
                found = study_row(connection, STUDIES.c.id == study_id) if retried else None
                if found is not None:
                    return study_record(found)
                held = lease_values(connection, holder or Holder.current())
                connection.execute(insert(STUDIES).values(**content, **held))
                if rows:
                    connection.execute(insert(TRIALS), rows)
                row = study_row(connection, STUDIES.c.id == study_id)
            assert row is not None
            return study_record(row)

        return self.patience.run(create)

    def take_over(
        self,
        name: str,
        *,
        job_digest: str,
        job: Mapping[str, Any],
        holder: Holder | None = None,
        outlived: datetime | None = None,
    ) -> StudyRecord:
        """Continue a study: shut out its former controller and give up the attempts that it left open.

        Their trials wait again, and the attempt does not count against them. What a former controller was asked for is
        forgotten.

        Args:
            name: The study.
            job_digest: Digest of the job's content.
            job: The job as JSON values.
            holder: Who takes it; None for this process.
            outlived: A lease that ends at this moment counts as ended.

        Raises:
            StudyHeldError: Another controller has it, and its lease has not ended.
        """
        holder = holder or Holder.current()

        def take(_retried: bool) -> StudyRecord:
            with self.engine.begin() as connection:
                row = study_row(connection, STUDIES.c.name == name, lock=True)
                assert row is not None
                found = study_record(row)
                refuse_held(connection, found, holder, outlived)
                same = found.holder == holder
                values = {
                    "fence": row["fence"] + 1,
                    "state": StudyState.RUNNING,
                    "job_digest": job_digest,
                    "job_json": canonical_json(dict(job)),
                    "updated_at": datetime.now(UTC),
                    **lease_values(connection, holder),
                    **({"held_since": row["held_since"]} if same else _NO_WISHES),
                }
                connection.execute(update(STUDIES).where(STUDIES.c.id == row["id"]).values(**values))
                left = select(ATTEMPTS).where(
                    ATTEMPTS.c.study_id == row["id"], ATTEMPTS.c.outcome == AttemptOutcome.OPEN
                )
                for attempt in connection.execute(left).mappings().all():
                    interrupt_attempt(connection, attempt, "the controller ended before the result came")
                taken = study_row(connection, STUDIES.c.id == row["id"])
            assert taken is not None
            return study_record(taken)

        return self.patience.run(take)

    def check_free(self, name: str) -> None:
        """Refuse a study that another process on this machine is at; of one elsewhere only its lease tells.

        Raises:
            StudyHeldError: Another process has it.
        """
        found = self.find_study(name)
        if found is None or found.holder is None or not found.holder.is_near:
            return
        self._read(lambda connection: refuse_held(connection, found, Holder.current(), None))

    def renew(self, study: StudyRecord) -> Controls:
        """Keep the study for another while, and return what its controller is asked for; an outage is not borne.

        Raises:
            StudyLostError: Another controller has taken it over.
            DBAPIError: The database does not answer.
        """
        with self.engine.begin() as connection:
            pass_fence(connection, study)
            row = study_row(connection, STUDIES.c.id == study.id)
        assert row is not None
        return controls_of(row)

    def ask_for(self, name: str, wishes: Controls) -> StudyRecord | None:
        """Ask the controller of a study for something; return the study as it is then, or None for none of that name.

        What is None, or False, in the wishes stays as it was asked for before.
        """
        values: dict[str, Any] = {}
        if wishes.stop:
            values["stop_requested_at"] = datetime.now(UTC)
        if wishes.parallel is not None:
            values["wanted_parallel"] = wishes.parallel
        if wishes.trials is not None:
            values["wanted_trials"] = wishes.trials

        def write(_retried: bool) -> StudyRecord | None:
            with self.engine.begin() as connection:
                if values:
                    connection.execute(update(STUDIES).where(STUDIES.c.name == name).values(**values))
                row = study_row(connection, STUDIES.c.name == name)
            return None if row is None else study_record(row)

        return self.patience.run(write)

    def set_state(self, study: StudyRecord, state: StudyState) -> None:
        """Write how the study ended, and release it."""
        values = {"state": state, **_NO_HOLDER, **_NO_WISHES}

        def write(connection: Connection, _retried: bool) -> None:
            connection.execute(update(STUDIES).where(STUDIES.c.id == study.id).values(**values))

        self._write(study, write)

    def put_trial(self, study: StudyRecord, trial: TrialRecord) -> None:
        """Write a whole trial that needs no worker: a repeat, one paid for before, or one whose costs are too high."""
        self._write(study, lambda connection, _retried: put_row(connection, study, trial))

    def start_attempt(self, study: StudyRecord, trial: TrialRecord, *, worker: str) -> None:
        """Write a whole trial, and that a worker is asked for its scores under the token that it bears."""
        assert trial.attempt is not None

        def write(connection: Connection, _retried: bool) -> None:
            put_row(connection, study, trial)
            open_attempt(connection, study, trial, worker=worker)

        self._write(study, write)

    def complete(
        self, study: StudyRecord, token: str, quality: Quality, *, evaluation_digest: str, split: str
    ) -> TellOutcome:
        """Record the quality that an attempt brought, once; the trial knows its costs already.

        An estimate from a trial that stopped early is the trial's alone: it depends on what the trial was up against.
        """

        def write(connection: Connection, retried: bool) -> TellOutcome:
            number = end_attempt(connection, study, token, AttemptOutcome.REPORTED)
            if number is None:
                return why_not(connection, study, token, AttemptOutcome.REPORTED if retried else None)
            row = trial_of(connection, study, number)
            change_trial(connection, study, number, score_values(trial_record(row).scored(quality)))
            if not quality.stopped_early:
                keep_quality(connection, evaluation_digest, row["policy_digest"], split, quality)
            return TellOutcome.ACCEPTED

        return self._write(study, write)

    def fail(self, study: StudyRecord, token: str, *, reason: str, message: str, retry: bool) -> TellOutcome:
        """Record why an attempt brought no scores, once.

        Args:
            study: The study.
            token: The attempt.
            reason: A value of `FailureReason`.
            message: What happened, for people.
            retry: Whether the trial waits for another attempt; else it has failed.
        """
        values: dict[str, Any] = {"state": TrialState.WAITING}
        if not retry:
            values = {
                "state": TrialState.FAIL,
                "failure_reason": reason,
                "failure_message": message,
                "finished_at": datetime.now(UTC),
            }

        def write(connection: Connection, retried: bool) -> TellOutcome:
            number = end_attempt(connection, study, token, AttemptOutcome.FAILED, reason, message)
            if number is None:
                return why_not(connection, study, token, AttemptOutcome.FAILED if retried else None)
            change_trial(connection, study, number, values)
            return TellOutcome.ACCEPTED

        return self._write(study, write)

    def interrupt(self, study: StudyRecord, token: str, message: str) -> TellOutcome:
        """Give up an attempt through no fault of its policy; the trial waits again."""

        def write(connection: Connection, retried: bool) -> TellOutcome:
            row = connection.execute(select(ATTEMPTS).where(ATTEMPTS.c.token == token)).mappings().one_or_none()
            if row is None or row["study_id"] != study.id or row["outcome"] != AttemptOutcome.OPEN:
                return why_not(connection, study, token, AttemptOutcome.INTERRUPTED if retried else None)
            interrupt_attempt(connection, row, message)
            return TellOutcome.ACCEPTED

        return self._write(study, write)

    @contextmanager
    def together(self, study: StudyRecord) -> Iterator[None]:
        """Let all writes to a study within the block be one transaction; none of it is read before its end.

        What the block raises ends it after its writes, unless the database or the fence refused them.
        """
        assert self._batch is None
        batch = self._batch = Batch(self.engine, self.patience, lambda connection: pass_fence(connection, study))
        try:
            yield
        except (DBAPIError, StudyLostError, DatabaseGoneError):
            raise
        except BaseException:
            batch.commit()
            raise
        else:
            batch.commit()
        finally:
            self._batch = None
            batch.close()

    def _read(self, work: Callable[[Connection], T]) -> T:
        def read(_retried: bool) -> T:
            with reading(self.engine) as connection:
                return work(connection)

        return self.patience.run(read)

    def _write(self, study: StudyRecord, work: Callable[[Connection, bool], T]) -> T:
        """Do something to a study that this controller has.

        Args:
            study: The study.
            work: Gets the connection, and whether it was tried before without hearing what became of it.
        """

        if self._batch is not None:
            return self._batch.write(work)

        def write(retried: bool) -> T:
            with self.engine.begin() as connection:
                pass_fence(connection, study)
                return work(connection, retried)

        return self.patience.run(write)
