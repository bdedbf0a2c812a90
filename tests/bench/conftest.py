"""The tests of the benchmarks use the fixtures of the tests of the service and of the library."""

from tests.app.conftest import database_url, postgresql, run, settings, tiny_checkpoint
from tests.model.conftest import exported_once, graphs

__all__ = ["database_url", "exported_once", "graphs", "postgresql", "run", "settings", "tiny_checkpoint"]
