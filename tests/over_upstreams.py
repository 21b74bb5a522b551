"""A real gateway over the three strict upstreams, which run in a process of their own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import Gateway, gateway
from upstreams.serve import RemoteControl, upstream_process

MODELS = {
    "openai": "openai/gpt-6-luna",
    "anthropic": "anthropic/claude-sonnet-5-5",
    "ollama": "ollama/gpt-oss:20b",
}
DIALECTS = sorted(MODELS)
PRICE = {"*": {"input": 1, "output": 2, "cached_input": 0.1, "cache_write": 1.25}}  # upstreams.control.Price


@dataclass(frozen=True)
class Stand:
    """The gateway, and a control for each upstream."""

    gateway: Gateway
    upstreams: Mapping[str, RemoteControl]

    def rows(self, request_id: str) -> list[dict[str, Any]]:
        """The attempts of a request."""
        return self.gateway.http.get(f"/v1/requests/{request_id}").json()["data"]

    def newest(self) -> dict[str, Any]:
        """The row that was written last."""
        return self.gateway.http.get("/v1/requests", params={"limit": 1}).json()["data"][0]

    def rows_so_far(self) -> int:
        """How many attempts have been booked."""
        spend = self.gateway.http.get("/v1/spend", params={"group_by": "provider"}).json()["data"]
        return sum(row["calls"] for row in spend)

    def last_call(self, dialect: str) -> dict[str, Any]:
        """What an upstream was asked last."""
        return self.upstreams[dialect].state()["calls"][-1]

    def billed(self) -> int:
        """What all upstreams have charged, in pico-dollars."""
        return sum(control.state()["bill_picousd"] for control in self.upstreams.values())


@contextmanager
def stand(folder: Path, **config: Any) -> Iterator[Stand]:
    """The stand, ended with the block."""
    with upstream_process() as upstreams:
        kinds = {
            name: {
                "type": name,
                "base_url": control.base_url,
                "prices": PRICE,
                "timeouts": {"first_content": "5s", "idle": "2s", "total": "20s"},
                **({} if name == "ollama" else {"api_key": "test-key"}),
            }
            for name, control in upstreams.items()
        }
        models = {"either": {"targets": [MODELS["anthropic"], MODELS["openai"]]}}
        with gateway(folder, {"providers": kinds, "models": models, **config}) as installed:
            installed.serve(workers=0)
            yield Stand(installed, upstreams)
