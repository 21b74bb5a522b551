"""What people do to a run: cancel, pause, resume, retry. Each is one transaction; `Conflict` says what would be right."""

from engine.catalogue import Catalogue
from engine.errors import Conflict, NotFound
from engine.pausing import GOING_ON, USER, give_budget, pause_below, pause_run, resume_family
from engine.reopening import go_on
from engine.states import RUN_ENDED, RunStatus
from engine.store.database import Row, Tx
from engine.store.runs import get_run, lock_run, lock_runs_above
from engine.transition import Ring, Transition


def cancel(tx: Tx, catalogue: Catalogue, run_id: str, now: int) -> tuple[Row, list[Ring]]:
    """End the run with all that is open; workers stop its calls when they next look. Raises: NotFound, Conflict."""
    tx.point("cancel")
    run = _lock(tx, run_id)
    if run["status"] == RunStatus.CANCELLED.value:
        return run, []
    if run["status"] in RUN_ENDED:
        raise Conflict("run_ended", f"the run is over ({run['status']}), only a run that goes on can be cancelled")
    transition = Transition(tx, run, catalogue.graph(tx, run["version_id"]), now)
    transition.cancel_run()
    transition.close()
    return _fresh(tx, run_id), transition.all_rings()


def pause(tx: Tx, catalogue: Catalogue, run_id: str, now: int) -> Row:
    """Claim no further step, nor one of the runs it has started; steps under way finish. Raises: NotFound, Conflict."""
    tx.point("pause")
    run = _lock(tx, run_id)
    if run["status"] == RunStatus.PAUSED.value:
        return run
    if run["status"] not in GOING_ON:
        raise Conflict("run_ended", f"the run is over ({run['status']}), only a run that goes on can be paused")
    pause_run(tx, catalogue, run, now, {"reason": USER})
    pause_below(tx, catalogue, run_id, now)
    return _fresh(tx, run_id)


def resume(tx: Tx, catalogue: Catalogue, run_id: str, budget_picousd: int | None, now: int) -> tuple[Row, list[Ring]]:
    """Let a paused run go on, with a new budget where one is given, and the runs that stopped with it. Raises: NotFound, Conflict."""
    tx.point("resume")
    above = lock_runs_above(tx, _known(get_run(tx, run_id), run_id))
    run = _lock(tx, run_id)
    if run["status"] != RunStatus.PAUSED.value:
        raise Conflict("run_not_paused", f"the run is {run['status']}, only a paused run can be resumed")
    if budget_picousd is not None:
        give_budget(tx, run_id, budget_picousd)
    rings = resume_family(tx, catalogue, run, above, now)
    return _fresh(tx, run_id), rings


def retry(tx: Tx, catalogue: Catalogue, run_id: str, now: int) -> tuple[Row, list[Ring]]:
    """Go on from what failed: finished results are kept and not paid for again. Raises: NotFound, Conflict."""
    tx.point("retry")
    run = _lock(tx, run_id)
    if run["status"] != RunStatus.FAILED.value:
        raise Conflict("run_not_failed", f"the run is {run['status']}, only a failed run can be retried")
    rings = go_on(tx, catalogue, run, now)
    return _fresh(tx, run_id), rings


def _lock(tx: Tx, run_id: str) -> Row:
    return _known(lock_run(tx, run_id), run_id)


def _known(run: Row | None, run_id: str) -> Row:
    if run is None:
        raise NotFound("run_not_found", f"there is no run {run_id}", param="run_id")
    return run


def _fresh(tx: Tx, run_id: str) -> Row:
    return _known(get_run(tx, run_id), run_id)
