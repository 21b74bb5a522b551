"""`/docs` and the document behind it: every route with its example and its errors, and nothing is fetched from elsewhere."""

import re

from stage import Stage
from starlette.testclient import TestClient

from api.app import create_app


def test_every_route_is_shown_and_nothing_comes_from_outside(sqlite_url: str) -> None:
    stage = Stage(sqlite_url)
    try:
        client = TestClient(create_app(stage.services()))
        page = client.get("/docs").text
        document = client.get("/openapi.json").json()
        unknown = client.get("/v1/runs", params={"limit": "many"})
        nowhere = client.get("/dashboard/<b>nothing")
        slash = client.get("/dashboard/", follow_redirects=False)
    finally:
        stage.database.close()
    assert nowhere.status_code == 404 and "there is no page /dashboard/&lt;b&gt;nothing" in nowhere.text
    assert (slash.status_code, slash.headers["location"]) == (308, "/dashboard")
    paths = document["paths"]
    assert len(paths) > 30
    for path in paths:
        assert path in page
    operations = [operation for methods in paths.values() for operation in methods.values()]
    assert not any("422" in operation["responses"] for operation in operations)  # FastAPI's own, in another shape
    assert "Validation" not in str(document["components"]["schemas"].keys())
    error = document["components"]["schemas"]["Error"]["properties"]["error"]
    assert unknown.status_code == 400 and unknown.json()["error"].keys() <= error["properties"].keys()
    assert set(error["required"]) <= unknown.json()["error"].keys()
    bodies = [kind for operation in operations for kind in operation.get("requestBody", {}).get("content", {}).values()]
    assert bodies and all("example" in kind or "$ref" in str(kind) for kind in bodies)
    assert "simulated/echo" in page  # an example
    assert re.findall(r"(?:src|href|action)=\"(?!/|#)[^\"]*", page) == []
