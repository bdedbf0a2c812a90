"""The states of models, and the crops that the next model could not embed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("model_id", sa.String(length=128), nullable=False),
        sa.Column("checkpoint", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("lossy", sa.Boolean(), nullable=False),
        sa.Column("crops_per_second", sa.Float(), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_models")),
    )
    op.create_table(
        "unreadable_crops",
        sa.Column("model_id", sa.String(length=128), nullable=False),
        sa.Column(
            "crop_key",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["crop_key"], ["crops.key"], name=op.f("fk_unreadable_crops_crop_key"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "crop_key", name=op.f("pk_unreadable_crops")),
    )
    op.create_index("ix_unreadable_crops_crop_key", "unreadable_crops", ["crop_key"])


def downgrade() -> None:
    op.drop_index("ix_unreadable_crops_crop_key", "unreadable_crops")

    op.drop_table("unreadable_crops")
    op.drop_table("models")
