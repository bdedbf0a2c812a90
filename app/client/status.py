"""`passerby status`: whether the service is ready, and what it does."""

import asyncio

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.errors import counted
from passerby import AsyncClient, NotReady, ReindexOut


def run_status(url: str, console: Console) -> int:
    """Print the state of the service; the exit code, 1 if it is not ready. Raises PasserbyError."""
    trouble, facts = asyncio.run(_status(url))
    rows = {"status": "ready" if trouble is None else f"not ready: {trouble}", **facts}
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, fact in rows.items():
        table.add_row(name, Text(fact, overflow="fold"))
    console.print(table)
    return 0 if trouble is None else 1


async def _status(url: str) -> tuple[str | None, dict[str, str]]:
    """Why the service is not ready, if so, and facts by name; some are not known while its database is down."""
    async with AsyncClient(url) as client:
        trouble = await _trouble(client)
        try:
            reindex = await client.get_reindex()
            model, queue = (await client.list_models())[0], await _queue_length(client)
        except NotReady:
            if trouble is None:
                raise
            return trouble, {}
    return trouble, {
        "model": f"{model.model_id}, {model.architecture}",
        "engine": model.runs_on or "not known",
        "crops": f"{reindex.total:,}",
        "queue": counted(queue, "crop"),
        "reindex": _progress(reindex),
    }


async def _trouble(client: AsyncClient) -> str | None:
    try:
        await client.get_ready()
    except NotReady as refused:
        return refused.detail or refused.title
    return None


async def _queue_length(client: AsyncClient) -> int:
    name = "passerby_embedding_queue_length "
    lines = (await client.get_metrics()).splitlines()
    return int(float(next((line.removeprefix(name) for line in lines if line.startswith(name)), "0")))


def _progress(reindex: ReindexOut) -> str:
    if reindex.state == "idle":
        return "none"
    speed = f", {reindex.crops_per_second:.0f} crops/s" if reindex.crops_per_second else ""
    progress = f"{reindex.next_model_id}: {reindex.embedded:,} of {reindex.total:,} crops{speed}"
    return f"{progress}; {reindex.state}: {reindex.trouble}" if reindex.trouble else progress
