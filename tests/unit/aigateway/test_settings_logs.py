import json
import subprocess
import sys

CODE = """
import logging, structlog
from aigateway.logs import bind_log_context, configure_logging
configure_logging("info", json={json})
log = structlog.get_logger("aigateway.test")
with bind_log_context(run_id="r1", step="s", attempt=2):
    log.info("step claimed", api_key="s3cret", url="postgresql://u:s3cret@h/x", max_tokens=4)
    logging.getLogger("uvicorn.error").info("Started %s", "it", extra={{"color_message": "x", "pid": 3}})
log.debug("too quiet")
logging.getLogger("httpx2").info("too chatty")
secret = "s3cret"
try:
    raise ValueError("Bearer s3cret")
except ValueError:
    logging.getLogger("engine.test").exception("it broke")
"""


def logged(*, as_json: bool) -> list[str]:
    done = subprocess.run([sys.executable, "-c", CODE.format(json=as_json)], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "s3cret" not in done.stderr
    return done.stderr.splitlines()


def test_every_line_is_json_with_its_context() -> None:
    claimed, started, broke = (json.loads(line) for line in logged(as_json=True))
    assert claimed.pop("timestamp").endswith("Z")
    assert claimed == {
        "level": "info", "message": "step claimed", "logger": "aigateway.test", "run_id": "r1", "step": "s", "attempt": 2,
        "api_key": "***", "url": "postgresql://u:***@h/x", "max_tokens": 4,
    }  # fmt: skip
    assert (started["message"], started["logger"], started["pid"], started["run_id"]) == (
        "Started it",
        "uvicorn.error",
        3,
        "r1",
    )
    assert "color_message" not in started
    assert (broke["message"], broke["level"]) == ("it broke", "error")
    assert "run_id" not in broke
    assert broke["exception"].splitlines()[-1] == "ValueError: Bearer ***"


def test_a_terminal_gets_readable_lines() -> None:
    lines = logged(as_json=False)
    assert "step claimed" in lines[0]
    assert any(line.startswith("Traceback") for line in lines)
