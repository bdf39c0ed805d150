"""Leases on studies, and what running controllers are asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_MOMENTS = ("held_since", "lease_expires_at", "stop_requested_at")
_NUMBERS = ("wanted_parallel", "wanted_trials")


def upgrade() -> None:
    """Make room; nobody holds the studies of earlier releases."""
    with op.batch_alter_table("studies") as studies:
        studies.add_column(sa.Column("holder_json", sa.Text(), nullable=True))
        for name in _MOMENTS:
            studies.add_column(sa.Column(name, sa.DateTime(), nullable=True))
        for name in _NUMBERS:
            studies.add_column(sa.Column(name, sa.Integer(), nullable=True))


def downgrade() -> None:
    """Forget them."""
    with op.batch_alter_table("studies") as studies:
        for name in (*reversed(_NUMBERS), *reversed(_MOMENTS), "holder_json"):
            studies.drop_column(name)
