"""Random programs of the flow step types, and what each comes to: a small interpreter of the language that knows no rows, keys or
counters. Shared by the property test of the engine and by the drill with real processes.
"""

from collections.abc import Callable, Sequence
from typing import Any

Steps = list[dict[str, Any]]


Choose = Callable[[Sequence[Any]], Any]


class Failure(Exception):
    """A step failed and nothing has caught it so far."""


class Maker:
    """Draws a program; ids are unique in the whole of it."""

    def __init__(self, choose: Choose, nap: str = "1s", *, agents: bool = False) -> None:
        self._choose = choose
        self._nap = nap
        self._simple = ["value", "value", "error", "sleep"] + ["agent"] * agents
        self._ids = 0

    def steps(self, depth: int) -> Steps:
        return [self.step(depth) for _ in range(self._choose(range(1, 4)))]

    def step(self, depth: int) -> dict[str, Any]:
        self._ids += 1
        kinds = self._simple + ["if", "switch", "foreach", "parallel", "while"] * (depth < 3)
        step = {"id": f"s{self._ids}", **getattr(self, f"_{self._choose(kinds)}")(depth)}
        match self._choose(["fail", "fail", "continue", "steps"]):
            case "continue":
                step["on_error"] = "continue"
            case "steps" if depth < 3:
                step["on_error"] = {"steps": self.steps(depth + 1)}
            case _:
                pass
        if self._choose(range(0, 6)) == 0:
            step["if"] = "false"
        return step

    def _value(self, depth: int) -> dict[str, Any]:
        return {"type": "set", "value": self._choose(range(0, 100))}

    def _error(self, depth: int) -> dict[str, Any]:
        return {"type": "set", "value": "${1 // 0}"}

    def _agent(self, depth: int) -> dict[str, Any]:
        """What its model does stands in its prompt (`engine_play.played`)."""
        turns = [str(self._choose(range(1, 4))) for _ in range(self._choose(range(0, 4)))]
        prompt = " ".join([*turns, self._choose(["answer", "answer", "fail"])])
        more = {"tools": ["t/x"], "max_turns": self._choose(range(1, 5))}
        return {"type": "agent", "model": "m", "prompt": prompt, **more}

    def _sleep(self, depth: int) -> dict[str, Any]:
        return {"type": "sleep", "duration": self._nap}

    def _if(self, depth: int) -> dict[str, Any]:
        both = {"then": self.steps(depth + 1), "else": self.steps(depth + 1)}
        return {"type": "if", "condition": self._choose((False, True)), **both}

    def _switch(self, depth: int) -> dict[str, Any]:
        cases = {name: self.steps(depth + 1) for name in ("a", "b")}
        return {"type": "switch", "value": self._choose("abc"), "cases": cases}

    def _foreach(self, depth: int) -> dict[str, Any]:
        policy = self._choose(["fail", "continue"])
        items = list(range(self._choose(range(0, 5))))
        more = {"concurrency": self._choose(range(1, 4)), "on_item_error": policy}
        return {"type": "foreach", "items": items, "steps": self.steps(depth + 1), **more}

    def _parallel(self, depth: int) -> dict[str, Any]:
        return {"type": "parallel", "branches": {name: self.steps(depth + 1) for name in ("left", "right")}}

    def _while(self, depth: int) -> dict[str, Any]:
        rounds = self._choose(range(0, 4))
        return {"type": "while", "condition": f"index < {rounds}", "max_iterations": 2, "steps": self.steps(depth + 1)}


def run_list(steps: Steps) -> tuple[Any, Any]:
    """The output of the list's last step, and that of the last one that ran. Raises: Failure."""
    output, ran = None, None
    for step in steps:
        output, counts = run_step(step)
        ran = output if counts else ran
    return output, ran


def run_step(step: dict[str, Any]) -> tuple[Any, bool]:
    """A step's output, and whether it counts as one that ran. Raises: Failure."""
    if step.get("if") == "false":
        return None, False
    try:
        return body(step), True
    except Failure:
        handler = step.get("on_error", "fail")
        if handler == "fail":
            raise
        return (None, False) if handler == "continue" else (run_list(handler["steps"])[1], True)


def body(step: dict[str, Any]) -> Any:
    match step["type"]:
        case "if":
            return run_list(step["then" if step["condition"] else "else"])[1]
        case "switch":
            return run_list(step["cases"].get(step["value"], []))[1]
        case "foreach":
            return [run_item(step) for _ in step["items"]]
        case "parallel":
            return {name: run_list(steps)[0] for name, steps in step["branches"].items()}
        case "while":
            outputs = [run_list(step["steps"])[0] for _ in range(min(2, int(step["condition"][-1])))]
            return outputs[-1] if outputs else None
        case "agent":
            *turns, end = step["prompt"].split()
            if end == "fail" or len(turns) >= step["max_turns"]:
                raise Failure
            return sum(map(int, turns))
        case "sleep":
            return None
        case _:
            if step["value"] == "${1 // 0}":
                raise Failure
            return step["value"]


def run_item(step: dict[str, Any]) -> Any:
    try:
        return run_list(step["steps"])[0]
    except Failure:
        if step["on_item_error"] == "fail":
            raise
        return None


def expected(steps: Steps) -> tuple[str, Any]:
    try:
        return "succeeded", run_list(steps)[0]
    except Failure:
        return "failed", None
