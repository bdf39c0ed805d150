"""Paid scores: quality by evaluation, policy, split and rung, with the score of every example."""

import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, RowMapping, Select, Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from controller.storage.engine import reading
from controller.storage.patience import Patience
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


_SCORES: Table = QualityRow.__table__  # type: ignore[assignment]


# Built once: building a statement costs more than running it.
_KEEPING = {
    "postgresql": postgresql.insert(_SCORES).on_conflict_do_nothing(),
    "sqlite": sqlite.insert(_SCORES).on_conflict_do_nothing(),
}
_PAID = (
    select(_SCORES)
    .where(
        _SCORES.c.evaluation_digest == bindparam("evaluation"),
        _SCORES.c.policy_digest == bindparam("policy"),
        _SCORES.c.split == bindparam("split"),
        _SCORES.c.rung.in_(bindparam("rungs", expanding=True)),
    )
    .order_by(_SCORES.c.rung)
)


class QualityStore:
    """Scores that were paid for once.

    Args:
        engine: The database.
        evaluation_digest: Digest of all that a quality depends on beside the policy: model, data, method.
        patience: How an outage of the database is borne; by default one of 20 seconds.
    """

    def __init__(self, engine: Engine, evaluation_digest: str, patience: Patience | None = None) -> None:
        self._engine = engine
        self._evaluation = evaluation_digest
        self._patience = patience or Patience(give_up_s=20.0)

    def get(self, policy_digest: str, split: str, rung: int | None = None) -> Quality | None:
        """Return the score on the whole split or on a rung, or None if nobody paid for it yet.

        The score on the whole split serves for its rungs too.
        """
        rungs = [WHOLE_SPLIT] if rung is None else [WHOLE_SPLIT, rung]
        of = {"evaluation": self._evaluation, "policy": policy_digest, "split": split, "rungs": rungs}
        rows = self._read(_PAID, of)
        return _quality(rows[0]) if rows else None

    def all_of(self, split: str) -> dict[str, Quality]:
        """Return all scores over the whole split, by policy digest."""
        query = select(_SCORES).where(
            _SCORES.c.evaluation_digest == self._evaluation,
            _SCORES.c.split == split,
            _SCORES.c.rung == WHOLE_SPLIT,
        )
        return {row["policy_digest"]: _quality(row) for row in self._read(query)}

    def put(self, policy_digest: str, split: str, quality: Quality) -> None:
        """Keep a score under the rung that it was made on; where there is one already, that one stays."""

        def write(_retried: bool) -> None:
            with self._engine.begin() as connection:
                keep_quality(connection, self._evaluation, policy_digest, split, quality)

        self._patience.run(write)

    def _read(self, query: Select[Any], values: Mapping[str, Any] | None = None) -> Sequence[RowMapping]:
        def read(_retried: bool) -> Sequence[RowMapping]:
            with reading(self._engine) as connection:
                return connection.execute(query, values or {}).mappings().all()

        return self._patience.run(read)


def keep_quality(
    connection: Connection, evaluation_digest: str, policy_digest: str, split: str, quality: Quality
) -> None:
    """Keep a score within a transaction; where there is one already, that one stays."""
    row = {
        "evaluation_digest": evaluation_digest,
        "policy_digest": policy_digest,
        "split": split,
        "rung": WHOLE_SPLIT if quality.rung is None else quality.rung,
        "metric": quality.metric,
        "value": quality.value,
        "kl_to_dense": quality.kl_to_dense,
        "seconds": quality.seconds,
        "per_example": encode_per_example(quality.per_example),
        "share": quality.share,
        "created_at": datetime.now(UTC),
    }
    connection.execute(_KEEPING["postgresql" if connection.dialect.name == "postgresql" else "sqlite"], row)


def _quality(row: RowMapping) -> Quality:
    return Quality(
        metric=row["metric"],
        value=row["value"],
        per_example=decode_per_example(row["per_example"]),
        kl_to_dense=row["kl_to_dense"],
        seconds=row["seconds"],
        rung=None if row["rung"] == WHOLE_SPLIT else row["rung"],
        share=row["share"],
    )
