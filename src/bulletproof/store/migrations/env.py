"""Run by Alembic, on the connection that ``bulletproof.store.migrate`` hands in."""

from alembic import context

from bulletproof.store.migrate import VERSION_TABLE
from bulletproof.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite alters a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
