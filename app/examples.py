"""Examples of answers, for the OpenAPI document: one for each operation whose answer is JSON."""

from collections.abc import Mapping
from typing import Any

from model.architecture import PARTS

_MODEL_ID = "mgn-osnet-3f1c5a9b7d20"
_CROP_ID, _OTHER_ID = "01jtdq7k8ham2v0c9r5x3e6wzn", "01jtdq9fz4s8b1yp6k7gt2nmqc"
_SEARCH_ID = "01jtdr2v5hw3q9x8e0b6c4ayzk"


def _crop(crop_id: str, camera_id: str, captured_at: str) -> dict[str, Any]:
    return {
        "id": crop_id,
        "camera_id": camera_id,
        "captured_at": captured_at,
        "time_guessed": False,
        "track_id": "gate-north-1830",
        "person_id": None,
        "attributes": {"lane": 2},
        "image_url": f"/crops/{crop_id}/image",
        "created_at": "2026-05-04T15:30:01.250000Z",
    }


_GATE = _crop(_CROP_ID, "gate-north", "2026-05-04T17:30:00+02:00")
_LOBBY = _crop(_OTHER_ID, "lobby", "2026-05-04T17:41:12+02:00") | {"track_id": None, "attributes": {}}
_CAMERA = {
    "id": "gate-north",
    "name": "North gate",
    "place": "Gate 3, facing in",
    "time_zone": "Europe/Vienna",
    "crops": 1830,
    "created_at": "2026-05-01T06:00:00Z",
}
_SEARCH = {
    "search_id": _SEARCH_ID,
    "created_at": "2026-05-04T16:02:40.120000Z",
    "model_id": _MODEL_ID,
    "gallery_size": 20480,
    "compared": 18650,
    "filters": {"exclude_camera_ids": ["gate-north"], "top_k": 20},
    "query_crop_ids": [],
    "matches": [
        {
            "rank": 1,
            "similarity": 0.912,
            "parts": dict(zip(PARTS, (0.95, 0.93, 0.94, 0.91, 0.88, 0.92, 0.9, 0.87), strict=True)),
            "crop": _LOBBY,
        }
    ],
    "sheet_url": f"/searches/{_SEARCH_ID}/sheet.jpg",
}
_REINDEX = {
    "state": "embedding",
    "active_model_id": _MODEL_ID,
    "active_checkpoint": "3f1c5a9b7d20" + "0" * 52,
    "next_model_id": "mgn-osnet-small-8e2b6f4d1c07",
    "next_checkpoint": "8e2b6f4d1c07" + "0" * 52,
    "embedded": 12_300,
    "total": 20_480,
    "crops_per_second": 95.5,
    "seconds_left": 85.7,
    "trouble": None,
    "unreadable": 0,
    "unreadable_crops": [],
    "dropping": [],
}

ANSWERS: Mapping[str, Any] = {
    "embed": {
        "model_id": _MODEL_ID,
        "items": [
            {"index": 0, "filename": "0001.jpg", "status": "created", "crop": _GATE},
            {
                "index": 1,
                "filename": "0002.jpg",
                "status": "failed",
                "problem": {
                    "type": "urn:passerby:problem:picture-damaged",
                    "title": "A picture cannot be used",
                    "status": 422,
                    "detail": "the file is damaged or cut off: the PNG has no end",
                },
            },
        ],
    },
    "list_crops": {"items": [_LOBBY, _GATE], "next_cursor": None},
    "get_crop": _GATE,
    "patch_crop": _GATE | {"person_id": "anna"},
    "patch_crops": {"matched": 12, "changed": 9, "dry_run": False},
    "delete_crops": {"matched": 12, "deleted": 12, "dry_run": False},
    "list_cameras": [_CAMERA],
    "get_camera": _CAMERA,
    "put_camera": _CAMERA,
    "delete_camera": {"matched": 1830, "deleted": 0, "dry_run": True},
    "search": _SEARCH,
    "get_search": _SEARCH,
    "list_searches": {
        "items": [
            {name: _SEARCH[name] for name in ("search_id", "created_at", "model_id", "filters", "sheet_url")}
            | {"matches": 20}
        ],
        "next_cursor": None,
    },
    "begin_reindex": _REINDEX | {"embedded": 0, "crops_per_second": None, "seconds_left": None},
    "get_reindex": _REINDEX,
    "get_live": {"status": "alive"},
    "get_ready": {"status": "ready", "model_id": _MODEL_ID, "gallery_size": 20_480},
    "list_models": [
        {
            "model_id": _MODEL_ID,
            "in_use": True,
            "crops": 20_480,
            "architecture": "MGN (practical) on osnet_omz",
            "input_size": [256, 128],
            "runs_on": "the CPU, with ONNX Runtime",
        }
    ],
}
"""By the operation's id."""

PROBLEM: Mapping[str, Any] = {
    "type": "urn:passerby:problem:not-found",
    "title": "Not found",
    "status": 404,
    "detail": f"there is no crop {_CROP_ID}",
}
