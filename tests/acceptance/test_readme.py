"""What the README shows is what happens: its configuration, its workflow, its transcript, its chat call."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from gateway import Gateway, gateway
from receiver import Receiver
from services import wait_until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(mark: str, language: str) -> str:
    """The code block behind `<!-- tested: MARK -->`."""
    found = re.search(rf"<!-- tested: {mark} -->\n```{language}\n(.*?)```", README, re.DOTALL)
    assert found, mark
    return found.group(1)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = yaml.safe_load(block("config", "yaml").replace("python3", sys.executable))
    with gateway(tmp_path_factory.mktemp("home"), config) as installed:
        installed.serve()
        yield installed


def test_the_workflow_shown_is_the_one_that_ships() -> None:
    shown = next(text for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "research-assistant" in text)
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / "workflows" / "research-assistant.yaml").read_text())


def test_the_command_line_call(up: Gateway) -> None:
    line = next(line for line in README.splitlines() if line.startswith("aigateway run "))
    up.environment["AIGATEWAY_URL"] = up.url
    done = up.run(*shlex.split(line)[1:])
    assert done.returncode == 0, done.stderr
    assert "history of tea" in done.stdout


def test_the_transcript(up: Gateway) -> None:
    commands = re.findall(r"^\$ (curl .*?)\n(?=\{|\$)", block("transcript", "console"), re.DOTALL | re.MULTILINE)
    assert len(commands) == 3
    with Receiver(200).listening() as receiver:
        run_id = "01a2…"
        answers = []
        for command in commands:
            text = command.replace("\\\n", " ").replace("localhost:8080", up.url).replace("01a2…", run_id)
            text = text.replace("http://127.0.0.1:9999/done", receiver.url)
            if "webhooks" in text:
                wait_until_delivered(up, run_id, receiver)
            answers.append(json.loads(subprocess.run(shlex.split(text), capture_output=True, check=True).stdout))
            run_id = answers[0]["id"]
        submitted, run, webhooks = answers
        assert {"id", "status", "links"} <= submitted.keys()
        assert run["status"] == "succeeded" and run["output"].startswith("Write a detailed")
        assert webhooks["data"][0]["status"] == "delivered"


def wait_until_delivered(up: Gateway, run_id: str, receiver: Receiver) -> None:
    wait_until(lambda: len(receiver.got) == 1, "the webhook came", 20)
    wait_until(lambda: "delivered" in up.http.get(f"/v1/runs/{run_id}/webhooks").text, "it is logged", 10)


def test_the_chat_call(up: Gateway) -> None:
    code = block("openai", "python").replace("http://127.0.0.1:8080", up.url)
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "Say it back"
