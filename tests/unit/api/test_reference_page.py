"""`/docs`: every route is there, and nothing is fetched from elsewhere."""

import re

from stage import Stage
from starlette.testclient import TestClient

from api.app import create_app


def test_every_route_is_shown_and_nothing_comes_from_outside(sqlite_url: str) -> None:
    stage = Stage(sqlite_url)
    try:
        client = TestClient(create_app(stage.services()))
        page = client.get("/docs").text
        paths = client.get("/openapi.json").json()["paths"]
    finally:
        stage.database.close()
    assert len(paths) > 30
    for path in paths:
        assert path in page
    assert "simulated/echo" in page  # an example
    assert re.findall(r"(?:src|href|action)=\"(?!/|#)[^\"]*", page) == []
