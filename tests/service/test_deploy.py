"""The dashboard, the alert rules and their page speak of what is really exposed."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bulletproof.llm import LLMCall, Spending

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus-alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
PAGE = ROOT / "docs" / "operate.md"
_OWN = {"job", "instance", "le"}  # labels that Prometheus gives


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())] + [r["expr"] for r in rules()]


@pytest.fixture
async def exposed(app: Any, client: httpx.AsyncClient) -> dict[str, set[str]]:
    """Labels by name of sample."""
    await client.post("/process", files={"file": ("t.json", b'["good"]')})
    await client.post("/process", files={"file": ("t.json", b"[broken")})
    app.state.services.measures.observe_llm(LLMCall("m", "success", 0.1, Spending(1, 1, 0.1)))
    text = (await client.get("/metrics", headers={"Accept": "application/openmetrics-text"})).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


async def test_every_metric_named_is_exposed_with_the_labels_named(exposed: dict[str, set[str]]) -> None:
    for query in queries():
        names = re.findall(r"bulletproof_\w+", query)
        assert names or "up{" in query
        for name, selector in re.findall(r"(bulletproof_\w+)(?:{([^}]*)})?", query):
            assert name in exposed, query
            assert set(re.findall(r'(\w+)\s*[=!]~?\s*"', selector)) <= exposed[name] | _OWN, query
        known = set().union(*(exposed[name] for name in names)) | _OWN
        for group in re.findall(r"by \(([^)]*)\)", query):
            assert set(re.split(r",\s*", group)) <= known, query


async def test_the_page_names_every_metric_there_is(exposed: dict[str, set[str]]) -> None:
    page = PAGE.read_text()
    for name in exposed:
        if not name.endswith("_created"):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in page, name


def test_each_alert_says_how_urgent_it_is_and_stands_on_the_page() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    assert re.findall(r"^### (\w+)$", PAGE.read_text(), re.MULTILINE) == names
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_the_dashboard_can_be_imported_anywhere() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"title", "panels", "templating", "schemaVersion"} <= set(dashboard)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert '"uid": "${datasource}"' in DASHBOARD.read_text()
