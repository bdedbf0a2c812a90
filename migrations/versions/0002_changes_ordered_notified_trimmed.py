"""The change log keeps its order for all writers, notifies readers, and can be trimmed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The same number as in app/database.py; a test compares them.
_WRITE_LOCK = 0x7061_7373_6572

# The trigger draws all sequence numbers, under the lock that every writing unit of work of the service takes first.
# The column has no default, and a number in the INSERT is overwritten. So numbers become visible in ascending order,
# for all writers. The service's own transactions hold the lock already. A foreign transaction that has changed rows
# before it reaches the trigger may wait for a unit of work that waits for those rows; PostgreSQL resolves this deadlock
# by an error in one of them.
_DRAW = f"""
CREATE FUNCTION draw_change_sequence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock({_WRITE_LOCK});
    NEW.sequence := nextval('changes_sequence_seq');
    RETURN NEW;
END $$;
CREATE TRIGGER draw_change_sequence BEFORE INSERT ON changes
    FOR EACH ROW EXECUTE FUNCTION draw_change_sequence();
ALTER TABLE changes ALTER COLUMN sequence DROP DEFAULT;
"""

# PostgreSQL sends one notification for each transaction, at its commit.
_TELL = """
CREATE FUNCTION tell_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('passerby_changes', '');
    RETURN NULL;
END $$;
CREATE TRIGGER tell_changes AFTER INSERT ON changes
    FOR EACH STATEMENT EXECUTE FUNCTION tell_changes();
"""

_UNDO = """
ALTER TABLE changes ALTER COLUMN sequence SET DEFAULT nextval('changes_sequence_seq');
DROP TRIGGER tell_changes ON changes;
DROP FUNCTION tell_changes;
DROP TRIGGER draw_change_sequence ON changes;
DROP FUNCTION draw_change_sequence;
"""


def upgrade() -> None:
    op.create_table(
        "trimmed_changes",
        sa.Column("model_id", sa.String(length=128), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_trimmed_changes")),
    )
    if _on_postgresql():
        op.get_bind().exec_driver_sql(_DRAW + _TELL)


def downgrade() -> None:
    if _on_postgresql():
        op.get_bind().exec_driver_sql(_UNDO)
    op.drop_table("trimmed_changes")


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"
