"""The service's settings and their rules. `app/configuration.py` reads them."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from socket import gethostname
from typing import Any, Literal

from pydantic import Field, JsonValue, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.engine_kinds import EngineKind, default_suffix, install_hint, is_installed
from app.kit.hosts import is_loopback
from app.kit.keys import is_header_value
from app.kit.names import did_you_mean, shown
from app.milvus_address import MilvusAddress
from model.checkpoint import BUNDLED

PREFIX = "PASSERBY_"

_OTHER_VARIABLES = ("URL", "PUBLISH", "BALANCER_PUBLISH", "REPLICAS", "CROPS")
"""Variables of the command line and of docker-compose.yml, which may be in a service's environment, too."""

MIN_KEY_LETTERS = 16

NEW_KEY = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
"""The command that makes an API key."""

_BYTES: dict[str, JsonValue] = {"unit": "bytes"}
_SECONDS: dict[str, JsonValue] = {"unit": "seconds"}
_PIXELS: dict[str, JsonValue] = {"unit": "pixels"}
_CROPS: dict[str, JsonValue] = {"unit": "crops"}


class Settings(BaseSettings):
    """The settings of one service process. Raises pydantic's ValidationError for unknown names and invalid values."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; any but loopback needs an API key")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    hosts: str = Field(
        "",
        description="Names of the service, separated by commas, such as `passerby.example.org`; it answers requests to "
        "other names with 421, except addresses, names without a dot, and those in .localhost, .local and .internal",
    )
    root_path: str = Field(
        "",
        description="Path prefix of the service behind a proxy, such as `/passerby`; the proxy may strip it or not",
    )
    api_key: SecretStr | None = Field(
        None,
        description=f"What clients send as X-API-Key: {MIN_KEY_LETTERS} or more ASCII letters, digits and signs, "
        f"without blanks. `{NEW_KEY}` makes one",
    )

    data_dir: Path = Field(Path("data"), description="Holds database, images and index snapshots by default")
    database_url: str | None = Field(
        None, description="postgresql://... or sqlite:///...; SQLite in data_dir by default"
    )
    index_url: str | None = Field(
        None,
        description="milvus://[USER:PASSWORD@]HOST:PORT[/DATABASE], shared by all services on one PostgreSQL; "
        "by default FAISS in this process",
    )
    images_url: str | None = Field(
        None, description="A path, or an fsspec URL such as s3://bucket/images; data_dir/images by default"
    )

    checkpoint: Path | None = Field(
        None,
        description="A .onnx or .safetensors checkpoint; the bundled one by default. It is the active model of a new "
        "gallery; others keep their active model until `passerby reindex`, unless it is lost or of an earlier version",
    )
    engine: EngineKind = Field(
        "auto",
        description="The engine: `onnx` (ONNX Runtime) or `openvino` for .onnx checkpoints, `torch` for .safetensors. "
        "`auto` selects the first of them that is installed and runs the checkpoint",
    )
    threads: int | None = Field(None, ge=1, description="Threads of the CPU engine; all cores by default")
    batch_size: int | None = Field(
        None,
        ge=1,
        le=1024,
        json_schema_extra=_CROPS,
        description="Largest batch of the engine; measured at start by default",
    )
    queue_capacity: int = Field(
        1024,
        ge=1,
        json_schema_extra=_CROPS,
        description="Maximum number of crops in the queue of each priority; requests beyond it get 429",
    )

    stall_seconds: float = Field(
        60.0,
        gt=0,
        json_schema_extra=_SECONDS,
        description="Seconds that one batch may take before the engine counts as hanging",
    )

    max_request_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        json_schema_extra=_BYTES,
        description="Largest body of a request, except that of `POST /reindex`",
    )
    max_checkpoint_bytes: int = Field(
        2 * 1024**3, ge=1024, json_schema_extra=_BYTES, description="Largest checkpoint that `reindex` accepts"
    )
    max_connections: int = Field(512, ge=1, description="Maximum number of connections; more are refused with 503")
    header_seconds: float = Field(
        10.0, gt=0, json_schema_extra=_SECONDS, description="Time for the headers of a request to arrive"
    )
    body_seconds: float = Field(
        30.0,
        gt=0,
        json_schema_extra=_SECONDS,
        description="How long a client may pause within a body; on average it must send 8 KiB a second, too",
    )
    max_files: int = Field(256, ge=1, le=10_000, description="Maximum number of pictures, or of boxes, in one request")
    max_pixels: int = Field(
        50_000_000, ge=1024, json_schema_extra=_PIXELS, description="Maximum number of pixels of one picture"
    )
    min_side: int = Field(
        16, ge=1, json_schema_extra=_PIXELS, description="Minimum width and height of a picture or box, in pixels"
    )

    snapshot_every: int = Field(10_000, ge=1, description="Changes of the gallery after which the index is saved")
    index_poll_seconds: float = Field(
        1.0,
        gt=0,
        json_schema_extra=_SECONDS,
        description="Seconds between polls for other processes' changes; PostgreSQL also notifies of them",
    )
    changes_kept: int = Field(
        1_000_000,  # small compared to the embeddings of 4 KiB each; covers the usual downtime of a service
        ge=1,
        description="Changes of each model kept in the log; an index that is further behind is rebuilt from all crops",
    )

    search_days: float = Field(
        30.0,
        gt=0,
        json_schema_extra={"unit": "days"},
        description="Time after which a stored search is deleted, with its pictures",
    )
    erase_seconds: float = Field(
        86_400.0,
        gt=0,
        json_schema_extra=_SECONDS,
        description="Time after which nothing of a deleted crop is left in the data folder and the database; the "
        "database's files are rewritten at most once in half of that time",
    )

    index_exact_limit: int = Field(
        10_000,
        ge=0,
        json_schema_extra=_CROPS,
        description="Largest gallery that is searched exactly; larger ones are searched approximately",
    )
    index_recall: float = Field(0.99, ge=0.5, lt=1, description="Target recall of approximate searches")

    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Form of the log; `auto` is text on a terminal and JSON elsewhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged")

    @model_validator(mode="before")
    @classmethod
    def _are_known(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = cls.variables()
        for name in sorted(os.environ):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                raise ValueError(f"there is no setting {shown(name)}{did_you_mean(name.upper(), known, PREFIX)}")
        return values

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, hosts: str) -> str:
        for name in filter(None, map(str.strip, hosts.split(","))):
            if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name):
                raise ValueError(f"{shown(name)} is no name of a host: write it without scheme, port and path")
        return hosts

    @field_validator("root_path")
    @classmethod
    def _is_path(cls, path: str) -> str:
        stripped = path.rstrip("/")
        if stripped and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", stripped):
            raise ValueError(f"{shown(path)} is no path prefix: write it as in /passerby, of letters, digits and .~_-")
        return stripped

    @field_validator("api_key")
    @classmethod
    def _is_usable_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not (is_header_value(text := key.get_secret_value()) and len(text) >= MIN_KEY_LETTERS):
            raise ValueError(
                f"must be at least {MIN_KEY_LETTERS} ASCII letters, digits and signs, without blanks; "
                f"make one with: {NEW_KEY}"
            )
        return key

    @field_validator("index_url")
    @classmethod
    def _is_valid_address(cls, url: str | None) -> str | None:
        if url is not None:
            MilvusAddress.parse(url)
            if find_spec("pymilvus") is None:
                raise ValueError("an index on Milvus needs the extra `milvus`: pip install 'passerby[milvus]'")
        return url

    @field_validator("engine")
    @classmethod
    def _is_installed(cls, engine: EngineKind) -> EngineKind:
        if engine != "auto" and not is_installed(engine):
            raise ValueError(install_hint(engine))
        return engine

    @model_validator(mode="after")
    def _needs_key_beyond_loopback(self) -> "Settings":
        if self.api_key is None and not is_loopback(self.host):
            raise ValueError(
                f"listening on {self.host} lets others reach the gallery: set PASSERBY_API_KEY, or listen on 127.0.0.1"
            )
        return self

    @classmethod
    def variables(cls) -> frozenset[str]:
        """The environment variables that begin with the prefix and may be set."""
        return frozenset(f"{PREFIX}{name.upper()}" for name in (*cls.model_fields, *_OTHER_VARIABLES))

    @property
    def names(self) -> frozenset[str]:
        """What the service is called, other than addresses and names that nobody can register."""
        return frozenset({self.host, gethostname(), *filter(None, map(str.strip, self.hosts.split(",")))})

    @property
    def database_file(self) -> Path:
        """The file of the default database."""
        return self.data_dir.resolve() / "passerby.sqlite3"

    @property
    def index_address(self) -> MilvusAddress | None:
        """The index server's address; None where the index is in this process."""
        return None if self.index_url is None else MilvusAddress.parse(self.index_url)

    @property
    def resolved_images_url(self) -> str:
        """The images' path or URL, with the default filled in."""
        return self.images_url or str(self.data_dir.resolve() / "images")

    @property
    def resolved_checkpoint(self) -> Path:
        """The checkpoint, by default the bundled one in a form that the engine can run."""
        return self.checkpoint or BUNDLED.with_suffix(default_suffix(self.engine))

    @property
    def checkpoints_url(self) -> str:
        """The checkpoint store, in the image store, which all services share."""
        if self.images_url is None:
            return str(self.checkpoints_dir)
        return f"{self.images_url.rstrip('/')}/checkpoints"

    @property
    def checkpoints_dir(self) -> Path:
        """The folder of this service's local copies of checkpoints."""
        return self.data_dir.resolve() / "checkpoints"

    @property
    def snapshots_dir(self) -> Path:
        """The folder of the index's snapshots."""
        return self.data_dir.resolve() / "snapshots"
