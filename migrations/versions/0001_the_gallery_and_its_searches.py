"""The gallery and its searches."""

import sqlalchemy as sa
from alembic import op

from app.kit.ids import new_id

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    gallery = op.create_table(
        "gallery",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gallery")),
    )
    op.bulk_insert(gallery, [{"id": new_id()}])
    op.create_table(
        "cameras",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("place", sa.String(length=200), nullable=True),
        sa.Column("time_zone", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cameras")),
    )
    op.create_table(
        "changes",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("model_id", sa.String(length=128), nullable=False),
        sa.Column("crop_key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("what", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_model_id_sequence", "changes", ["model_id", "sequence"])

    op.create_table(
        "doomed_images",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_doomed_images")),
    )
    op.create_table(
        "images",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.String(length=32), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_images")),
    )
    op.create_table(
        "searches",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.String(length=128), nullable=False),
        sa.Column("gallery_size", sa.Integer(), nullable=False),
        sa.Column("compared", sa.Integer(), nullable=False),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("query_crop_ids", sa.JSON(), nullable=False),
        sa.Column("matches", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_searches")),
    )
    op.create_table(
        "crops",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("camera_id", sa.String(length=64), nullable=False),
        sa.Column("captured_at", sa.BigInteger(), nullable=False),
        sa.Column("utc_offset", sa.Integer(), nullable=False),
        sa.Column("track_id", sa.String(length=200), nullable=True),
        sa.Column("person_id", sa.String(length=200), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["camera_id"], ["cameras.id"], name=op.f("fk_crops_camera_id")),
        sa.ForeignKeyConstraint(["image_sha256"], ["images.sha256"], name=op.f("fk_crops_image_sha256")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_crops")),
        sa.UniqueConstraint(
            "camera_id",
            "captured_at",
            "image_sha256",
            name=op.f("uq_crops_camera_id_captured_at_image_sha256"),
        ),
        sa.UniqueConstraint("id", name=op.f("uq_crops_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_crops_captured_at_key", "crops", ["captured_at", "key"])
    op.create_index("ix_crops_image_sha256", "crops", ["image_sha256"])
    op.create_index("ix_crops_person_id", "crops", ["person_id"])
    op.create_index("ix_crops_track_id", "crops", ["track_id"])

    op.create_table(
        "image_uses",
        sa.Column("owner_id", sa.String(length=26), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["image_sha256"], ["images.sha256"], name=op.f("fk_image_uses_image_sha256")),
        sa.PrimaryKeyConstraint("owner_id", "position", name=op.f("pk_image_uses")),
    )
    op.create_index("ix_image_uses_image_sha256", "image_uses", ["image_sha256"])

    op.create_table(
        "embeddings",
        sa.Column("model_id", sa.String(length=128), nullable=False),
        sa.Column(
            "crop_key",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["crop_key"], ["crops.key"], name=op.f("fk_embeddings_crop_key"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model_id", "crop_key", name=op.f("pk_embeddings")),
    )
    op.create_index("ix_embeddings_crop_key", "embeddings", ["crop_key"])


def downgrade() -> None:
    op.drop_index("ix_embeddings_crop_key", "embeddings")

    op.drop_table("embeddings")
    op.drop_index("ix_image_uses_image_sha256", "image_uses")

    op.drop_table("image_uses")
    op.drop_index("ix_crops_track_id", "crops")
    op.drop_index("ix_crops_person_id", "crops")
    op.drop_index("ix_crops_image_sha256", "crops")
    op.drop_index("ix_crops_captured_at_key", "crops")

    op.drop_table("crops")
    op.drop_table("searches")
    op.drop_table("images")
    op.drop_table("doomed_images")
    op.drop_index("ix_changes_model_id_sequence", "changes")

    op.drop_table("changes")
    op.drop_table("cameras")
    op.drop_table("gallery")
