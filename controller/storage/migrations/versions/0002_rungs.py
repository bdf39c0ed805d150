"""Trials and scores on rungs of a split."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Say how much of the split each score saw; rung 0, which was the whole split, becomes -1."""
    with op.batch_alter_table("trials") as trials:
        trials.add_column(sa.Column("rung", sa.Integer(), nullable=True))
        trials.add_column(sa.Column("share", sa.Double(), nullable=False, server_default="1.0"))
    with op.batch_alter_table("quality_scores") as scores:
        scores.add_column(sa.Column("share", sa.Double(), nullable=False, server_default="1.0"))
    op.execute("UPDATE quality_scores SET rung = -1 WHERE rung = 0")


def downgrade() -> None:
    """Forget what was scored on rungs."""
    op.execute("DELETE FROM quality_scores WHERE rung >= 0")
    op.execute("UPDATE quality_scores SET rung = 0 WHERE rung = -1")
    with op.batch_alter_table("quality_scores") as scores:
        scores.drop_column("share")
    with op.batch_alter_table("trials") as trials:
        trials.drop_column("share")
        trials.drop_column("rung")
