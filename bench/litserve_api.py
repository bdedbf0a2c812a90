"""The network as a LitServe API, in its own module because LitServe's workers import it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from bench.pictures import as_inputs
from model.onnx_session import open_session

Crops = NDArray[np.uint8]


class Embedding(litserve.LitAPI):  # type: ignore[misc]
    """Decodes and embeds the pictures of a form in one process; answers with their number."""

    def __init__(self, checkpoint: Path, threads: int, max_requests: int) -> None:
        """threads: of the session. max_requests: in a batch."""
        super().__init__(max_batch_size=max_requests, batch_timeout=0.005 if max_requests > 1 else 0.0)
        self._checkpoint = checkpoint
        self._threads = threads

    def setup(self, device: str) -> None:
        self._session, self._metadata = open_session(self._checkpoint, self._threads)

    def decode_request(self, request: Request) -> Crops:
        form: Any = request  # LitServe passes the parsed form
        return as_inputs([file.file.read() for file in form.getlist("files")], self._metadata.input)

    def batch(self, inputs: Sequence[Crops]) -> list[Crops]:
        return list(inputs)

    def predict(self, inputs: list[Crops] | Crops) -> list[int]:
        """The number of crops of each request; LitServe passes a list if it batches requests."""
        requests = inputs if isinstance(inputs, list) else [inputs]
        parts = self._session.run(None, {"crops": np.concatenate(requests)})[0]
        ends = np.cumsum([len(crops) for crops in requests])
        return [len(request_parts) for request_parts in np.split(parts, ends[:-1])]

    def unbatch(self, output: list[int]) -> list[int]:
        return output

    def encode_response(self, output: int | list[int]) -> dict[str, int]:
        return {"crops": output if isinstance(output, int) else output[0]}
