"""`create_app`: wires the domains."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from app.browsers import BrowserGuard
from app.database import Database, database_url_of, shown_url
from app.disk_reserve import DiskReserve, use_reserve
from app.docs_page import serve_docs
from app.embedding.engine import Engines
from app.embedding.metrics import EmbeddingMetrics
from app.gallery import endpoints as gallery_endpoints
from app.gallery.change_log_reader import DatabaseChangeLogReader
from app.gallery.images import ImageStore
from app.gallery.repository import GalleryRepository
from app.gallery.service import GalleryService
from app.handlers import handle_errors
from app.index.faiss_index import FaissIndex, Tuning
from app.index.local_storage import LocalIndexStorage
from app.index.snapshots import SnapshotStore
from app.index.sync import IndexStorage, IndexSync
from app.kit.provide import provide
from app.known_fields import refuse_unknown_fields
from app.models import endpoints as model_endpoints
from app.models.active import ActiveModel
from app.models.checkpoints import CheckpointStore
from app.models.loader import ModelLoader
from app.models.rollout import Rollout
from app.models.service import ReindexService
from app.models.supervisor import ModelSupervisor
from app.openapi import CONTACT, DESCRIPTION, LICENCE, TAGS, describe, operation_id
from app.places import adopt_misplaced_data, adopt_misplaced_files, check_database_place, exclusive_use, local_folder
from app.requests import BodyLimit, HeadAsGet, RequestLog, RootPath
from app.search import endpoints as search_endpoints
from app.search.erasure import Erasure
from app.search.service import SearchService
from app.security import KeyGuard, require_api_key, require_api_key_or_link
from app.settings import Settings
from app.start_errors import StartError
from app.status import endpoints as status_endpoints
from model.decoding import PictureLimits

VERSION = version("passerby")


def create_app(settings: Settings, engines: Engines | None = None) -> FastAPI:
    """The service as an ASGI application; its parts start and stop with the application's lifespan.

    `engines`: loaded engines to use; by default those of the configured checkpoint. Raises StartError.
    """
    registry = CollectorRegistry()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_parts(settings, registry, engines) as parts:
            provide(app, settings, registry, *parts)
            yield
        provide(app)  # drop the parts: FastAPI's caches keep an application for ever, which would keep its networks

    app = FastAPIOffline(
        title="Passerby",
        version=VERSION,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        contact=CONTACT,
        license_info=LICENCE,
        generate_unique_id_function=operation_id,
        redirect_slashes=False,  # such a redirect names the host that the request has named
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        form_limits={"max_files": settings.max_files, "max_fields": 10_000, "max_part_size": 1024 * 1024},
        swagger_ui_parameters={
            "tryItOutEnabled": True,
            "persistAuthorization": True,
            "docExpansion": "list",
            "defaultModelsExpandDepth": -1,
        },
    )
    app.add_middleware(HeadAsGet)
    pictures, checkpoint = settings.max_request_bytes, settings.max_checkpoint_bytes
    forms = {"/embed": pictures, "/search": pictures, "/reindex": checkpoint}
    app.add_middleware(BodyLimit, multipart_bytes=forms, seconds=settings.body_seconds)
    if settings.api_key is not None:
        app.add_middleware(KeyGuard, api_key=settings.api_key.get_secret_value())
    app.add_middleware(BrowserGuard, names=settings.names)
    app.add_middleware(RequestLog, registry=registry)
    if settings.root_path:
        app.add_middleware(RootPath, prefix=settings.root_path)
    handle_errors(app)
    known_fields = Depends(refuse_unknown_fields)
    secured = [Depends(require_api_key), known_fields, Depends(use_reserve)]
    secured_or_linked = [Depends(require_api_key_or_link), known_fields]
    app.include_router(search_endpoints.router, dependencies=secured)
    app.include_router(search_endpoints.pictures, dependencies=secured_or_linked)
    app.include_router(gallery_endpoints.router, dependencies=secured)
    app.include_router(gallery_endpoints.pictures, dependencies=secured_or_linked)
    app.include_router(model_endpoints.router, dependencies=secured)
    app.include_router(status_endpoints.health, dependencies=[known_fields])
    app.include_router(status_endpoints.router, dependencies=secured)
    describe(app, needs_api_key=settings.api_key is not None)
    serve_docs(app)
    _check_root_path(app, settings.root_path)
    return app


def _check_root_path(app: FastAPI, root_path: str) -> None:
    """Refuse a prefix that endpoints begin with: nobody could tell which of both a request means."""
    first = "/".join(root_path.split("/")[:2])
    taken = (*app.openapi()["paths"], "/docs", "/openapi.json") if first else ()
    if any(f"{path}/".startswith(f"{first}/") for path in taken):
        raise StartError(f"PASSERBY_ROOT_PATH cannot be {root_path}, as paths of the service begin with {first}")


@asynccontextmanager
async def running_parts(
    settings: Settings, registry: CollectorRegistry, engines: Engines | None
) -> AsyncIterator[tuple[object, ...]]:
    """Start the parts in order, and stop them in reverse order."""
    async with AsyncExitStack() as stack:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if settings.index_address is None:  # services with their index on a server may share the folder
            stack.enter_context(exclusive_use(settings.data_dir.resolve()))
        find_misplaced_files(settings)
        database = Database(database_url_of(settings))
        stack.push_async_callback(database.close)
        images = ImageStore(settings.resolved_images_url)
        if await database.migrate() and await images.has_images():
            raise StartError(
                f"the database {shown_url(database_url_of(settings))} is new, but {settings.resolved_images_url} has "
                "pictures of a gallery: correct PASSERBY_DATABASE_URL or restore the database; for a new gallery, set "
                "PASSERBY_IMAGES_URL or PASSERBY_DATA_DIR to an empty folder"
            )
        async with database.read() as session:
            gallery_id = await GalleryRepository(session).gallery_id()
        await check_index_server(settings)
        checkpoints = CheckpointStore(settings.checkpoints_url, settings.checkpoints_dir)
        checkpoints.clear()
        new_sync = partial(index_sync, settings, database, snapshot_store(settings, gallery_id), gallery_id)
        limits = PictureLimits(settings.max_pixels, settings.min_side, settings.max_request_bytes)
        models = ModelLoader(settings, database, checkpoints, limits, EmbeddingMetrics(registry), new_sync)
        model = await models.start(engines)
        active_model = ActiveModel(database, model, models.load)
        stack.push_async_callback(active_model.stop)
        await active_model.start()

        gallery = GalleryService(database, images, active_model)
        await gallery.delete_orphaned_images()
        search = SearchService(database, images, active_model, gallery)
        erasure = Erasure(
            database, gallery, images, settings.search_days, settings.erase_seconds, settings.index_poll_seconds
        )
        await erasure.start()
        stack.push_async_callback(erasure.stop)
        rollout = Rollout(database, images, active_model, checkpoints, models.in_background)
        supervisor = ModelSupervisor(active_model, rollout, settings.index_poll_seconds)
        await supervisor.start()
        stack.push_async_callback(supervisor.stop)
        reindex = ReindexService(database, checkpoints, active_model, rollout, supervisor, models.on_trial)
        reserve = DiskReserve(database.folder, local_folder(settings.resolved_images_url))
        reserve.start()
        yield database, active_model, gallery, search, reindex, reserve


def find_misplaced_files(settings: Settings) -> None:
    """Find what versions before 0.3 kept elsewhere. Raises MisplacedGallery, OSError."""
    if settings.database_url is None:
        check_database_place(settings.database_file)
    adopt_misplaced_data(settings.data_dir.resolve())
    images = None if settings.images_url is None else local_folder(settings.images_url)
    if images is not None and settings.images_url == images.as_uri():
        adopt_misplaced_files(images)


def snapshot_store(settings: Settings, gallery_id: str) -> SnapshotStore:
    """The snapshots of this process's indexes: one index a model, so two during a reindex."""
    folder = settings.snapshots_dir / gallery_id
    shutil.rmtree(folder / "working", ignore_errors=True)  # of versions before 0.2
    return SnapshotStore(folder, partial(FaissIndex.restore, tuning=_tuning(settings)))


async def check_index_server(settings: Settings) -> None:
    """Connect to the server that has the index, if there is one. Raises IndexUnreachable."""
    if settings.index_address is not None:
        from app.index.milvus import MilvusServer  # pymilvus is an extra

        server = await asyncio.to_thread(MilvusServer, settings.index_address)
        await asyncio.to_thread(server.client.close)


async def index_sync(
    settings: Settings, database: Database, snapshots: SnapshotStore, gallery_id: str, model_id: str
) -> IndexSync:
    """The index sync of one model, not started. Raises IndexUnreachable."""
    change_log = DatabaseChangeLogReader(database, model_id, settings.changes_kept)
    storage = await index_storage(settings, database, snapshots, gallery_id, model_id)
    return IndexSync(change_log, storage, poll_seconds=settings.index_poll_seconds)


async def index_storage(
    settings: Settings, database: Database, snapshots: SnapshotStore, gallery_id: str, model_id: str
) -> IndexStorage[Any]:
    """The index storage: local snapshots, or the server that the settings name. Raises IndexUnreachable."""
    address = settings.index_address
    if address is None:
        new_index = partial(FaissIndex, model_id, _tuning(settings))
        return LocalIndexStorage(model_id, snapshots, new_index, settings.snapshot_every, settings.erase_seconds)
    from app.index.milvus import MilvusIndexStorage, MilvusServer  # pymilvus is an extra

    await asyncio.to_thread(snapshots.drop_all)  # of an index in the process, which nobody would keep up to date
    server = await asyncio.to_thread(MilvusServer, address)
    return MilvusIndexStorage(server, gallery_id, model_id, database.index_lock)


def _tuning(settings: Settings) -> Tuning:
    return Tuning(settings.index_exact_limit, settings.index_recall)
