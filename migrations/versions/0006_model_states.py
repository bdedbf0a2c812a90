"""The states of models have the names that the API uses."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE models RENAME COLUMN lossy TO allow_missing")
    op.execute("UPDATE models SET state = 'active' WHERE state = 'answers'")


def downgrade() -> None:
    op.execute("UPDATE models SET state = 'answers' WHERE state = 'active'")
    op.execute("ALTER TABLE models RENAME COLUMN allow_missing TO lossy")
