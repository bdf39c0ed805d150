"""Runs migrations on the connection that `controller.storage.engine` hands over."""

from alembic import context

from controller.storage.engine import VERSION_TABLE
from controller.storage.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
