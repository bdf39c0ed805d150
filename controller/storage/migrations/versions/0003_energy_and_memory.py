"""Energy and peak memory of trials."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make room for what earlier releases did not know; it stays empty for their trials."""
    with op.batch_alter_table("trials") as trials:
        trials.add_column(sa.Column("energy_mj", sa.Double(), nullable=True))
        trials.add_column(sa.Column("energy_basis", sa.Text(), nullable=True))
        trials.add_column(sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Forget both."""
    with op.batch_alter_table("trials") as trials:
        trials.drop_column("peak_memory_bytes")
        trials.drop_column("energy_basis")
        trials.drop_column("energy_mj")
