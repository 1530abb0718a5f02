"""BULLETPROOF_CHAOS: off, refused, or said loudly; and what it strikes is answered typed."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulletproof.errors import ConfigurationError
from bulletproof.service import create_app
from bulletproof.settings import Settings

CSV = {"file": ("reviews.csv", b"text\nI love it\nIt broke at once\n", "text/csv")}


def settings_with(folder: Path, *rules: dict[str, Any], **more: Any) -> Settings:
    plan = json.dumps({"seed": 7, "rules": list(rules)})
    return Settings(data_dir=folder, chaos=plan, chaos_allow=True, analysis_workers=0, **more)


def test_a_plan_without_leave_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fail on purpose") as caught:
        create_app(Settings(data_dir=tmp_path, chaos='{"rules": []}'))
    assert "BULLETPROOF_CHAOS_ALLOW" in (caught.value.hint or "")


def test_a_stage_that_there_is_none_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"rule 1 .*'stroe'") as caught:
        create_app(settings_with(tmp_path, {"stage": "stroe", "hang": 1}))
    assert "store" in (caught.value.hint or "")


def test_the_command_refuses_it_in_one_line(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "BULLETPROOF_DATA_DIR": str(tmp_path), "BULLETPROOF_CHAOS": "{"}
    command = [sys.executable, "-m", "bulletproof", "serve", "--port", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "BULLETPROOF_CHAOS_ALLOW" in done.stderr
    assert "Traceback" not in done.stderr


async def ask(settings: Settings, client_of: Callable[..., httpx.AsyncClient]) -> tuple[Any, Any, Any]:
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        answer = await client.post("/process", files=CSV)
        return app.state.services, answer, (await client.get("/health")).json()


async def test_it_is_said_in_the_log_and_in_health(
    tmp_path: Path, client_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rule = {"stage": "store", "latency": 0.01}
    _, answer, health = await ask(settings_with(tmp_path, rule), client_of)
    assert answer.json()["stored"] is True
    assert [record.levelno for record in caplog.records if "FAILS ON PURPOSE" in record.message] == [logging.WARNING]
    assert health["status"] == "degraded"
    assert health["components"]["chaos"]["faults"]["store"]["latency"] >= 3


async def test_an_error_of_the_model_is_answered_typed(tmp_path: Path, client_of: Any) -> None:
    rule = {"stage": "analyze", "error": "prediction_failed"}
    _, answer, _ = await ask(settings_with(tmp_path, rule), client_of)
    assert (answer.status_code, answer.json()["code"]) == (500, "prediction_failed")


async def test_garbage_of_the_model_is_answered_typed(tmp_path: Path, client_of: Any) -> None:
    _, answer, _ = await ask(settings_with(tmp_path, {"stage": "analyze", "garbage": "rubbish"}), client_of)
    assert (answer.status_code, answer.json()["status"]) == (500, "error")
    assert "rubbish" not in answer.text


async def test_a_store_that_fails_for_good_costs_no_answer(tmp_path: Path, client_of: Any) -> None:
    _, answer, _ = await ask(settings_with(tmp_path, {"stage": "store", "error": "disk_full"}), client_of)
    found = answer.json()
    assert (answer.status_code, found["stored"], found["store_error"]["code"]) == (200, False, "disk_full")
    assert len(found["results"]) == 2


async def test_faults_of_the_llm_meet_its_retries_and_its_fallback(
    tmp_path: Path, client_of: Any, wire: Any, judge: Any, fine: Any
) -> None:
    wire.default = judge(lambda texts: {name: fine(text) for name, text in texts.items()})
    llm = {"llm_base_url": wire.base_url}
    once = {"stage": "llm", "error": "service_unavailable", "calls": [1, 1]}
    services, answer, _ = await ask(settings_with(tmp_path, once, **llm), client_of)
    assert services.chaos.report()["faults"] == {"llm": {"error": 1}}
    assert services.chaos.report()["calls"]["llm"] >= 2
    for_good = {"stage": "llm", "error": "auth_failed"}
    _, answer, _ = await ask(settings_with(tmp_path, for_good, **llm), client_of)
    assert (answer.status_code, answer.json()["degraded"]) == (200, True)


async def test_downloads_of_batches_are_struck_and_tried_again(tmp_path: Path, client_of: Any, web: Any) -> None:
    import asyncio

    rule = {"stage": "download", "error": "service_unavailable", "calls": [1, 1]}
    app = create_app(settings_with(tmp_path, rule, fetch_allow_hosts=("127.0.0.1",)))
    async with app.router.lifespan_context(app), client_of(app) as client:
        batch = (await client.post("/batches", json={"urls": [web.url("/page/1")]})).json()
        for _ in range(300):
            found = (await client.get(f"/batches/{batch['batch_id']}")).json()
            if found["status"] == "complete":
                break
            await asyncio.sleep(0.1)
        assert found["success"] == 1
        assert app.state.services.chaos.report()["faults"] == {"download": {"error": 1}}
