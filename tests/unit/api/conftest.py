from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from stage import Stage
from starlette.testclient import TestClient

from api.metrics import routes as metric_routes
from api.pages.routes import routes as page_routes


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    found = Stage(database_url)
    yield found
    found.close()


@pytest.fixture
def browser(stage: Stage) -> Iterator[TestClient]:
    """What a browser on the same origin gets from pages and metrics alone."""
    app = FastAPI()
    services = stage.services()
    app.include_router(page_routes(services))
    app.include_router(metric_routes(services))
    with TestClient(app, base_url="http://127.0.0.1:8080", follow_redirects=False) as client:
        yield client
