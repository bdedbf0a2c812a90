"""Passerby as a library: embed pictures of people in this process, or talk to a service.

The types of answers are the service's own schemas.
"""

from app.gallery.schemas import (
    CameraOut,
    ChangedCrops,
    CropOut,
    CropPage,
    DeletedCrops,
    EmbedAnswer,
    EmbeddingOut,
    EmbedItem,
)
from app.models.schemas import ReindexOut
from app.problem import Problem
from app.search.schemas import MatchOut, SearchAnswer, SearchPage, SearchSummary
from app.status.schemas import Alive, ModelOut, Ready
from model.architecture import PARTS
from passerby.async_client import AsyncClient
from passerby.client import Client
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
from passerby.fields import CropFilters, CropSelection, EmbedOptions, Labels, SearchOptions
from passerby.pictures import Picture, Pictures
from passerby.uploading import NewCrop, UploadedCrop, UploadSummary

__all__ = [
    "PARTS",
    "Alive",
    "AsyncClient",
    "Busy",
    "CameraOut",
    "ChangedCrops",
    "CheckpointError",
    "Client",
    "Conflict",
    "CropFilters",
    "CropOut",
    "CropPage",
    "CropSelection",
    "DeletedCrops",
    "EmbedAnswer",
    "EmbedItem",
    "EmbedOptions",
    "EmbeddingOut",
    "Embeddings",
    "InvalidRequest",
    "Labels",
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
    "SearchPage",
    "SearchSummary",
    "ServiceError",
    "Unauthorised",
    "UnexpectedAnswer",
    "Unreachable",
    "UploadSummary",
    "UploadedCrop",
    "load_model",
]
