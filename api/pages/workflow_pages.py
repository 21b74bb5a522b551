"""`/dashboard/workflows`: the stored definitions, and one of them as a graph with its text and its latest runs."""

from typing import Any

from fastapi import Response

from api.pages.graph_drawing import draw
from api.pages.rendering import page
from api.pages.run_list import run_rows
from api.services import Services
from engine.store.database import Tx
from engine.store.definitions import list_workflows
from engine.views import workflow_view
from engine.workflow_graph import workflow_graph
from engine.workflows import find

_RUNS = 10
MOST_NODES = 400  # of a drawing that a person can still read


async def workflow_list(services: Services) -> Response:
    """The page with all definitions by name."""
    rows = await services.database.read(list_workflows)
    views = [workflow_view(row) for row in rows]
    return await page("workflows.html", {"here": "workflows", "workflows": views})


async def workflow_page(services: Services, name: str) -> Response:
    """One definition. Raises: NotFound."""

    def read(tx: Tx) -> dict[str, Any]:
        row = find(tx, name)
        definition = services.catalogue.graph(tx, row["id"]).definition
        runs = run_rows(tx, {"status": "", "workflow": name, "before": ""}, _RUNS)
        graph = workflow_graph(definition)
        return {"workflow": workflow_view(row), "description": definition.description, "graph": graph, "runs": runs}

    found = await services.database.read(read)
    nodes = found["graph"]["nodes"]
    drawing = draw(nodes) if len(nodes) <= MOST_NODES else None
    return await page("workflow.html", {"here": "workflows", **found, "drawing": drawing, "steps": len(nodes)})
