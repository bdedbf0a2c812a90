"""The pictures of a search's query belong to the search."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "search_pictures",
        sa.Column("search_id", sa.String(length=26), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["search_id"], ["searches.id"], name=op.f("fk_search_pictures_search_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("search_id", "position", name=op.f("pk_search_pictures")),
    )


def downgrade() -> None:
    op.drop_table("search_pictures")
