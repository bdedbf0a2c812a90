"""Attributes in the text form that filters compare."""

import sqlalchemy as sa
from alembic import op

from app.gallery.attributes import lines_of

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CROPS_AT_ONCE = 1_000


def upgrade() -> None:
    op.add_column("crops", sa.Column("attribute_lines", sa.Text(), nullable=True))
    key, lines = sa.column("key", sa.BigInteger), sa.column("attribute_lines", sa.Text)
    crops = sa.table("crops", key, sa.column("attributes", sa.JSON), lines)
    update = sa.update(crops).where(key == sa.bindparam("of")).values({lines: sa.bindparam("to")})
    last = 0
    while True:
        query = sa.select(key, crops.c.attributes).where(key > last).order_by(key).limit(_CROPS_AT_ONCE)
        rows = op.get_bind().execute(query.select_from(crops)).all()
        if not rows:
            return
        last = rows[-1].key
        values = [{"of": row.key, "to": lines_of(row.attributes)} for row in rows if row.attributes]
        if values:
            op.get_bind().execute(update, values)


def downgrade() -> None:
    op.drop_column("crops", "attribute_lines")
