"""docker-compose.yml and Dockerfile: valid, reached from this machine alone, started in order, and without secrets."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OURS = ("api", "worker")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_file_keeps_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_services_are_those_of_the_contract() -> None:
    assert {"api", "worker", "redis", "postgres", "prometheus", "grafana"} == set(SERVICES)
    assert SERVICES["api"]["command"][0] == "api"
    assert SERVICES["worker"]["command"][0] == "worker"


def test_only_loopback_is_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8080:8080", "127.0.0.1:3000:3000"]
    assert not any("network_mode" in service for service in SERVICES.values())


@pytest.mark.parametrize("name", OURS)
def test_ours_start_when_what_they_need_is_healthy(name: str) -> None:
    needs = SERVICES[name]["depends_on"]
    assert {each: needs[each]["condition"] for each in needs} == {
        "postgres": "service_healthy",
        "redis": "service_healthy",
    }


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_watched_and_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", OURS)
def test_ours_can_do_no_more_than_they_must(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


def test_what_must_last_is_on_a_volume() -> None:
    volumes = [volume.split(":")[0] for volume in SERVICES["postgres"]["volumes"]]
    assert volumes == ["postgres"]
    assert "postgres" in COMPOSE["volumes"]


def test_images_are_pinned_to_a_version() -> None:
    images = [service["image"] for service in SERVICES.values()] + re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert len(images) >= 6
    assert [image for image in images if not re.fullmatch(r"([a-z]+/)?[a-z]+:v?\d+(\.\d+)*(-[a-z]+)?", image)] == []


def test_secrets_come_from_outside() -> None:
    for name in OURS:
        environment = SERVICES[name]["environment"]
        keys = {key: value for key, value in environment.items() if key.endswith(("_KEY", "_SECRET", "_TOKEN"))}
        assert keys
        assert set(keys.values()) == {None}  # handed on where it is set; an empty value would count as a key
        assert "${POSTGRES_PASSWORD:-" in environment["AIGATEWAY_DATABASE_URL"]
    assert not re.search(r"^(ARG|ENV) .*(KEY|SECRET|TOKEN|PASSWORD)", DOCKERFILE, re.M)


def test_api_and_worker_share_their_settings() -> None:
    api, worker = (dict(SERVICES[name]["environment"]) for name in OURS)
    own = {key for key in api if key.startswith("AIGATEWAY_SERVER__")}
    assert worker.pop("AIGATEWAY_WORKER__METRICS_HOST") == "0.0.0.0"
    assert {key: value for key, value in api.items() if key not in own} == worker


def test_the_image_runs_as_nobody_special_and_is_watched() -> None:
    last_stage = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.search(r"^USER aigateway$", last_stage, re.M)
    assert last_stage.index("USER ") < last_stage.index("ENTRYPOINT ")
    assert "HEALTHCHECK" in last_stage
    assert "--require-hashes -r requirements.lock" in DOCKERFILE


def test_the_build_sees_the_sources_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    allowed = {line.lstrip("!").rstrip("/") for line in lines if line.startswith("!")}
    assert allowed == {
        *("aigateway", "api", "worker", "engine", "providers", "mcp_bridge", "migrations", "workflows"),
        *("pyproject.toml", "requirements.lock", "README.md", "LICENSE"),
    }


def metrics_of_ours() -> set[str]:
    """Every metric that the code makes, as Prometheus calls it."""
    code = "".join(path.read_text() for room in ("api", "worker", "engine") for path in (ROOT / room).rglob("*.py"))
    names = set(re.findall(r'"(aigateway_[a-z_]+)"', code)) | {f"aigateway_budget_{name}" for name in BUDGETS}
    return names | {name + end for name in names for end in ("_total", "_bucket", "_count", "_sum", "_info")}


BUDGETS = ("limit_usd", "spent_usd", "reserved_usd", "alerts")
WATCHING = ("prometheus.yml", "rules.yml", "grafana/aigateway.json", "grafana/datasource.yml", "grafana/provider.yml")


def test_what_is_watched_is_there() -> None:
    files = {name: (ROOT / "dashboards" / name).read_text() for name in WATCHING}
    asked = {name for text in files.values() for name in re.findall(r"aigateway_[a-z_]+", text)}
    assert len(asked) > 12 and asked <= metrics_of_ours()
    rules = yaml.safe_load(files["rules.yml"])["groups"][0]["rules"]
    assert all({"alert", "expr", "labels", "annotations"} <= rule.keys() for rule in rules)
    panels = json.loads(files["grafana/aigateway.json"])["panels"]
    source = yaml.safe_load(files["grafana/datasource.yml"])["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    mounted = {
        volume.split(":")[0]
        for name in ("prometheus", "grafana")
        for volume in SERVICES[name]["volumes"]
        if volume.startswith("./")
    }
    assert mounted == {f"./dashboards/{name}" for name in WATCHING}
    jobs = yaml.safe_load(files["prometheus.yml"])["scrape_configs"]
    assert jobs[0]["static_configs"][0]["targets"] == ["api:8080"]
    assert jobs[1]["dns_sd_configs"][0] == {"names": ["worker"], "type": "A", "port": 9100}
