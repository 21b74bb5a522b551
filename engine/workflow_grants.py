"""What a key that may use `workflow/NAME` may have done: all that the stored workflow does, whatever models its steps ask.

The workflow's author chose those models. So nothing counts here that the key's holder wrote: neither a definition sent along with
a run, nor the models that a fork put in place of the workflow's own. Workflows that it calls are part of what it does.
"""

from engine.api_keys import ApiKey
from engine.store.database import Tx
from engine.store.runs import runs_above

WORKFLOW_MODEL = "workflow/"
"""What the name of a workflow begins with where it stands for a model."""


def granted_by_workflow(tx: Tx, key: ApiKey, run_id: str) -> bool:
    """Whether a call of that run is made by a workflow that the key may use, or by one that such a workflow called."""
    return any(
        run["version"] is not None and run["models_json"] is None and key.allows(WORKFLOW_MODEL + run["workflow_name"])
        for run in runs_above(tx, run_id)
    )
