"""docker-compose.yml passes every setting on, and keeps what is the container's own."""

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

OWN = {"PASSERBY_HOST", "PASSERBY_PORT", "PASSERBY_DATA_DIR"}
"""The settings that are the container's, whatever .env says."""


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """The services of the file, by name."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    read: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return dict(read["services"])


def test_all_settings_of_dotenv_reach_the_service(services: dict[str, dict[str, Any]]) -> None:
    for name in ("passerby", "import", "replica"):
        assert services[name]["env_file"] == [{"path": ".env", "required": False}]
    for variable, value in services["passerby"]["environment"].items():
        if variable.startswith("PASSERBY_") and variable not in OWN:
            assert value.startswith(f"${{{variable}:-"), f"{variable} of .env is lost"


def test_the_databases_password_is_in_no_url(services: dict[str, dict[str, Any]]) -> None:
    environment = services["passerby"]["environment"]
    assert "PASSWORD" not in environment["PASSERBY_DATABASE_URL"]
    assert environment["PGPASSWORD"] == services["postgres"]["environment"]["POSTGRES_PASSWORD"]


def test_the_container_is_healthy_while_it_is_alive() -> None:
    check = next(line for line in (ROOT / "Dockerfile").read_text().splitlines() if "urlopen" in line)
    assert "/health/live" in check
