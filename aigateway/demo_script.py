"""The demo's stage: its topic, its pace, and a configuration in which a simulated provider speaks lines written here.

Nothing that the simulated models say comes from a model; the search is real, over the documents that ship with the project.
Called by `aigateway.demo` alone.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKFLOW = "research-assistant"
TOPIC = "how lighthouses and tides guided ships"
WORKERS = 2
KILLED_STEP = "report"
PROVIDER = "sim"
MCP_SERVER = "brave-search"
DATABASE_FILE = "demo.db"
CONFIG_FILE = "demo.yaml"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the simulated models take, and how far into the report's call the worker is killed. Seconds."""

    summarize_s: float
    report_s: float
    kill_after_s: float


CALM = Pace(summarize_s=1.2, report_s=4.0, kill_after_s=2.0)
FAST = Pace(summarize_s=0.1, report_s=1.0, kill_after_s=0.2)

_SUMMARY = """\
Ships were guided by two things that could be known in advance: lights and water. Lighthouses grew from the fire on Pharos, \
which stood for some sixteen hundred years, to Smeaton's tower on the Eddystone rock (1759) and Fresnel's lens (1822), which \
threw the light of one oil lamp thirty kilometres. Tides come about every twelve hours and twenty-five minutes, raised by \
the Moon and, less than half as strongly, by the Sun; since the 1870s machines of pulleys and wheels predicted them."""

_REPORT = """\
Long before a ship could ask where it was, it could ask where the light was. The tower on the island of Pharos, at the mouth \
of the harbour of Alexandria, burned for some sixteen hundred years and lent its name to lighthouses in half the languages \
of Europe. Most of its successors were humbler, a basket of coals on a pole, and dark whenever the wind blew hard.

Two inventions made the light dependable. John Smeaton gave his tower on the Eddystone, in 1759, the shape of an oak, built \
of blocks that lock into one another, and it outlived the rock beneath it. In 1822 Augustin Fresnel put rings of prisms in \
the place of one huge lens: a tenth of the glass, and the beam of a single oil lamp seen at thirty kilometres. With a rhythm \
of flashes of its own, every tower told captains its name.

The water kept a rhythm too. High water comes about every twelve hours and twenty-five minutes, higher at new and full moon, \
when Sun and Moon pull together, and tamer at the quarters. From the 1870s on, machines of pulleys and wheels added up dozens \
of such rhythms and printed the year ahead. A captain with the table and the light list knew when a harbour was deep enough, \
and which lamp stood at its mouth."""


def write_configuration(folder: Path, pace: Pace) -> Path:
    """The configuration of the demo's own server, as a file in `folder`, where its database goes as well."""
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(_configuration(pace), indent=2), encoding="utf-8")  # JSON is YAML
    return path


def _configuration(pace: Pace) -> dict[str, Any]:
    models = {
        "scripted-small": _model(_SUMMARY, pace.summarize_s, input_usd=0.1, output_usd=0.4),
        "scripted-large": _model(_REPORT, pace.report_s, input_usd=3, output_usd=15),
    }
    return {
        "database_url": f"sqlite:///{DATABASE_FILE}",
        "worker": {"processes": WORKERS},
        "log": {"level": "warning", "format": "json"},
        "providers": {PROVIDER: {"type": "simulated", "models": models}},
        "models": {"local": f"{PROVIDER}/scripted-small", "claude-sonnet-4-5": f"{PROVIDER}/scripted-large"},
        "mcp_servers": {MCP_SERVER: {"command": sys.executable, "args": ["-P", "-m", "mcp_bridge.documents"]}},
    }


def _model(reply: str, delay_s: float, *, input_usd: float, output_usd: float) -> dict[str, Any]:
    """Prices are USD per million tokens, as everywhere in the configuration."""
    return {"reply": reply, "delay": f"{delay_s * 1000:.0f}ms", "input": input_usd, "output": output_usd}
