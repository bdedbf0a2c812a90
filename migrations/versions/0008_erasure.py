"""What deletions leave behind is erased: hashes of query pictures, and deletions of which something may be left."""

import hashlib

import sqlalchemy as sa
from alembic import op

from app.kit.times import now_microseconds

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SEARCHES_AT_ONCE = 100


def upgrade() -> None:
    op.add_column("search_pictures", sa.Column("sha256", sa.String(length=64), nullable=True))
    op.create_index("ix_search_pictures_sha256", "search_pictures", ["sha256"])
    op.create_index("ix_searches_created_at", "searches", ["created_at"])
    deletions = op.create_table(
        "deletions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deletions")),
        sqlite_autoincrement=True,
    )
    _hash_pictures()
    if _was_used():  # earlier versions left deleted rows in free pages, and ids of deleted crops in searches
        op.get_bind().execute(sa.insert(deletions).values(deleted_at=now_microseconds()))


def downgrade() -> None:
    op.drop_table("deletions")
    op.drop_index("ix_searches_created_at", "searches")
    op.drop_index("ix_search_pictures_sha256", "search_pictures")
    op.drop_column("search_pictures", "sha256")


def _was_used() -> bool:
    tables = (sa.table(name) for name in ("changes", "trimmed_changes", "searches"))
    used = (sa.select(sa.exists(sa.select(sa.literal(1)).select_from(table))) for table in tables)
    return any(op.get_bind().execute(one).scalar_one() for one in used)


def _hash_pictures() -> None:
    search_id, position = sa.column("search_id", sa.String), sa.column("position", sa.Integer)
    content, sha256 = sa.column("content", sa.LargeBinary), sa.column("sha256", sa.String)
    pictures = sa.table("search_pictures", search_id, position, content, sha256)
    update = sa.update(pictures).where(search_id == sa.bindparam("of"), position == sa.bindparam("at"))
    update = update.values({sha256: sa.bindparam("to")})
    last = ""
    while True:
        ids = sa.select(search_id).select_from(pictures).where(search_id > last).distinct()
        found = op.get_bind().execute(ids.order_by(search_id).limit(_SEARCHES_AT_ONCE)).scalars().all()
        if not found:
            return
        last = found[-1]
        for one in found:
            rows = op.get_bind().execute(sa.select(position, content).select_from(pictures).where(search_id == one))
            values = [{"of": one, "at": row.position, "to": hashlib.sha256(row.content).hexdigest()} for row in rows]
            op.get_bind().execute(update, values)
