"""Passerby as a library: embed pictures of people in this process, or talk to a service.

The types of answers are the service's own schemas.
"""

from app.gallery.schemas import (
    CameraOut,
    CropOut,
    CropPage,
    EmbedAnswer,
    EmbeddingOut,
    EmbedItem,
)
from app.models.schemas import ReindexOut
from app.problem import Problem
from app.search.schemas import MatchOut, SearchAnswer
from app.status.schemas import Alive, ModelOut, Ready
from model.architecture import PARTS
from passerby.client import AsyncClient, Client
from passerby.embedding import Embeddings, Model, load_model
from passerby.errors import (
    Busy,
    CheckpointError,
    Conflict,
    InvalidRequest,
    NotFound,
    NotReady,
    PasserbyError,
    PictureError,
    Refused,
    ServiceError,
    Unauthorised,
    UnexpectedAnswer,
    Unreachable,
)
from passerby.fields import CropFilters, EmbedOptions, SearchOptions
from passerby.pictures import Picture, Pictures
from passerby.uploading import NewCrop, UploadedCrop, UploadSummary

__all__ = [
    "PARTS",
    "Alive",
    "AsyncClient",
    "Busy",
    "CameraOut",
    "CheckpointError",
    "Client",
    "Conflict",
    "CropFilters",
    "CropOut",
    "CropPage",
    "EmbedAnswer",
    "EmbedItem",
    "EmbedOptions",
    "EmbeddingOut",
    "Embeddings",
    "InvalidRequest",
    "MatchOut",
    "Model",
    "ModelOut",
    "NewCrop",
    "NotFound",
    "NotReady",
    "PasserbyError",
    "Picture",
    "PictureError",
    "Pictures",
    "Problem",
    "Ready",
    "Refused",
    "ReindexOut",
    "SearchAnswer",
    "SearchOptions",
    "ServiceError",
    "Unauthorised",
    "UnexpectedAnswer",
    "Unreachable",
    "UploadSummary",
    "UploadedCrop",
    "load_model",
]
