"""What all tests share: where the developers' data is, and which tests need what."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # OpenMP threads of several processes would contend for the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A console that reads its size from there would keep it in all tests.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)

SHARED = Path(__file__).parents[2] / "shared"


# No deadline, as a busy machine makes no property false.
settings.register_profile("passerby", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("passerby")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--seed`."""
    parser.addoption("--seed", type=int, default=1804, help="seed of what tests draw at random; default: %(default)s")


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of what a test draws at random, which a failing test prints; `random` starts from it, too."""
    seed: int = request.config.getoption("seed")
    print(f"seed: pytest --seed {seed}")
    random.seed(seed)
    return seed


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run in asyncio, as the service does."""
    return "asyncio"


@pytest.fixture
def shared() -> Path:
    """The developers' data folder; tests that use it are marked `shared`."""
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs data or a GPU that is not there."""
    missing = {} if SHARED.is_dir() else {"shared": "needs the developers' data in ../shared"}
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        missing["gpu"] = "needs a GPU that torch finds"
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
