"""Paid scores: quality by evaluation, policy, split and rung, with the score of every example."""

import zlib
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Engine, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from controller.storage.engine import READ_ONLY
from controller.storage.schema import QualityRow
from evaluators.scores import Quality

WHOLE_SPLIT = -1
"""Rung of a score over all examples of the split."""
_FLOAT = np.dtype("<f8")


def encode_per_example(values: tuple[float, ...]) -> bytes:
    """Pack scores of examples without loss."""
    return zlib.compress(np.asarray(values, dtype=_FLOAT).tobytes())


def decode_per_example(packed: bytes) -> tuple[float, ...]:
    """Unpack what `encode_per_example` packed."""
    return tuple(np.frombuffer(zlib.decompress(packed), dtype=_FLOAT).tolist())


class QualityStore:
    """Scores that were paid for once.

    Args:
        engine: The database.
        evaluation_digest: Digest of all that a quality depends on beside the policy: model, data, method.
    """

    def __init__(self, engine: Engine, evaluation_digest: str) -> None:
        self._engine = engine
        self._evaluation = evaluation_digest

    def get(self, policy_digest: str, split: str, rung: int | None = None) -> Quality | None:
        """Return the score on the whole split or on a rung, or None if nobody paid for it yet.

        The score on the whole split serves for its rungs too.
        """
        with Session(self._engine.execution_options(**READ_ONLY)) as session:
            for key in (WHOLE_SPLIT, rung):
                row = (
                    session.get(QualityRow, (self._evaluation, policy_digest, split, key)) if key is not None else None
                )
                if row is not None:
                    return _quality(row)
            return None

    def all_of(self, split: str) -> dict[str, Quality]:
        """Return all scores over the whole split, by policy digest."""
        query = select(QualityRow).where(
            QualityRow.evaluation_digest == self._evaluation,
            QualityRow.split == split,
            QualityRow.rung == WHOLE_SPLIT,
        )
        with Session(self._engine.execution_options(**READ_ONLY)) as session:
            return {row.policy_digest: _quality(row) for row in session.scalars(query)}

    def put(self, policy_digest: str, split: str, quality: Quality) -> None:
        """Keep a score under the rung that it was made on; where there is one already, that one stays."""
        with Session(self._engine) as session, session.begin():
            keep_quality(session, self._evaluation, policy_digest, split, quality)


def keep_quality(session: Session, evaluation_digest: str, policy_digest: str, split: str, quality: Quality) -> None:
    """Keep a score within a transaction; where there is one already, that one stays."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(QualityRow).values(
        evaluation_digest=evaluation_digest,
        policy_digest=policy_digest,
        split=split,
        rung=WHOLE_SPLIT if quality.rung is None else quality.rung,
        metric=quality.metric,
        value=quality.value,
        kl_to_dense=quality.kl_to_dense,
        seconds=quality.seconds,
        per_example=encode_per_example(quality.per_example),
        share=quality.share,
        created_at=datetime.now(UTC),
    )
    session.execute(row.on_conflict_do_nothing())


def _quality(row: QualityRow) -> Quality:
    return Quality(
        metric=row.metric,
        value=row.value,
        per_example=decode_per_example(row.per_example),
        kl_to_dense=row.kl_to_dense,
        seconds=row.seconds,
        rung=None if row.rung == WHOLE_SPLIT else row.rung,
        share=row.share,
    )
