"""Tables of the database. A change here needs a migration beside it; a test compares the two."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

STUDY_SCHEMA_VERSION = 1
"""Version of the JSON inside rows."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, stored in UTC and read back with its zone."""

    impl = DateTime(timezone=False)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse moments without a zone and write the others in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a moment needs a time zone; got {value!r}; use datetime.now(UTC)")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Give what was read its zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of all tables, with constraint names that migrations can refer to."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text(), float: Double(), datetime: UtcDateTime()}  # noqa: RUF012  # read once by SQLAlchemy


class StudyRow(Base):
    """A study, who holds it and until when, and what its controller was asked for while it runs."""

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    schema_version: Mapped[int]
    state: Mapped[str]
    job_digest: Mapped[str]
    job_json: Mapped[str]
    fixed_json: Mapped[str]
    space_digest: Mapped[str]
    objectives_json: Mapped[str]
    fence: Mapped[int]
    holder_json: Mapped[str | None]
    held_since: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    stop_requested_at: Mapped[datetime | None]
    wanted_parallel: Mapped[int | None]
    wanted_trials: Mapped[int | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class TrialRow(Base):
    """A trial: one row, written when it is asked and when it is told."""

    __tablename__ = "trials"

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    role: Mapped[str]
    name: Mapped[str]
    policy_digest: Mapped[str]
    policy_json: Mapped[str]
    rung: Mapped[int | None]
    state: Mapped[str]
    attempt_token: Mapped[str | None]
    attempt_count: Mapped[int] = mapped_column(default=0)
    quality: Mapped[float | None]
    share: Mapped[float] = mapped_column(default=1.0, server_default="1.0")
    latency_ms: Mapped[float]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    energy_mj: Mapped[float | None]
    energy_basis: Mapped[str | None]
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    scores_json: Mapped[str | None]
    repeat_of: Mapped[int | None]
    violations_json: Mapped[str | None]
    failure_reason: Mapped[str | None]
    failure_message: Mapped[str | None]
    sampler_json: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index(None, "study_id", "policy_digest"),
        Index(None, "study_id", "state"),
    )


class AttemptRow(Base):
    """One try at a trial, by one worker."""

    __tablename__ = "attempts"

    token: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[str]
    number: Mapped[int]
    ordinal: Mapped[int]
    worker: Mapped[str]
    outcome: Mapped[str]
    reason: Mapped[str | None]
    message: Mapped[str | None]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["study_id", "number"], ["trials.study_id", "trials.number"], ondelete="CASCADE"),
        Index(None, "study_id", "number"),
    )


class QualityRow(Base):
    """A paid score. It belongs to model, data and method, not to a study or a target, and outlives both."""

    __tablename__ = "quality_scores"

    evaluation_digest: Mapped[str] = mapped_column(primary_key=True)
    policy_digest: Mapped[str] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    rung: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    metric: Mapped[str]
    value: Mapped[float]
    kl_to_dense: Mapped[float]
    seconds: Mapped[float]
    per_example: Mapped[bytes]
    share: Mapped[float] = mapped_column(default=1.0, server_default="1.0")
    created_at: Mapped[datetime]


class OutboxRow(Base):
    """A message to MLflow that waits until it was sent."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    kind: Mapped[str]
    payload_json: Mapped[str]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "study_id", "sent_at", "id"),)


# For statements of Core: each trial is written twice, and the ORM's bookkeeping would be most of what that costs.
STUDIES: Table = StudyRow.__table__  # type: ignore[assignment]
TRIALS: Table = TrialRow.__table__  # type: ignore[assignment]
ATTEMPTS: Table = AttemptRow.__table__  # type: ignore[assignment]
