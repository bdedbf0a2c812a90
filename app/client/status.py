"""`passerby status`: whether the service is ready, and what it does."""

import asyncio

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.client.errors import Refused
from app.client.http import ReindexAnswer, ServiceClient
from model.errors import counted


def run_status(url: str, console: Console) -> int:
    """Print the state of the service; the exit code, 1 if it is not ready. Raises ClientError."""
    trouble, facts = asyncio.run(_status(url))
    rows = {"status": "ready" if trouble is None else f"not ready: {trouble}", **facts}
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, fact in rows.items():
        table.add_row(name, Text(fact, overflow="fold"))
    console.print(table)
    return 0 if trouble is None else 1


async def _status(url: str) -> tuple[str | None, dict[str, str]]:
    """Why the service is not ready, if so, and facts by name; some are not known while its database is down."""
    async with ServiceClient.at(url) as service:
        trouble = await service.why_not_ready()
        try:
            reindex = await service.reindex()
            model, queue = (await service.models())[0], await service.queue_length()
        except Refused as refused:
            if trouble is None or refused.status != 503:
                raise
            return trouble, {}
    return trouble, {
        "model": f"{model.model_id}, {model.architecture}",
        "engine": model.runs_on or "not known",
        "crops": f"{reindex.total:,}",
        "queue": counted(queue, "crop"),
        "reindex": _progress(reindex),
    }


def _progress(reindex: ReindexAnswer) -> str:
    if reindex.state == "idle":
        return "none"
    speed = f", {reindex.crops_per_second:.0f} crops/s" if reindex.crops_per_second else ""
    progress = f"{reindex.next_model_id}: {reindex.embedded:,} of {reindex.total:,} crops{speed}"
    return f"{progress}; {reindex.state}: {reindex.trouble}" if reindex.trouble else progress
