"""How long each stage of a file takes, and that whoever asks is told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bulletproof.processor import STAGES, AIDataProcessor, FileReport, log_context
from bulletproof.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


async def test_each_file_is_reported_with_its_stages_and_models(settings: Settings, tmp_path: Path) -> None:
    reports: list[FileReport] = []
    broken = tmp_path / "broken.json"
    broken.write_text("[broken")
    async with AIDataProcessor(settings=settings, on_file=reports.append) as processor:
        good = await processor.process_file(b'["lovely", "awful"]')
        bad = await processor.process_file(broken)
    assert [report.code for report in reports] == ["success", bad["code"]]
    assert [time.stage for time in reports[0].stages] == list(STAGES)
    assert all(0 <= time.busy <= time.ended - time.started + 1e-6 for time in reports[0].stages)
    assert list(reports[0].model_calls) == [good["analyzer"]]
    assert reports[1].processing_id == bad["processing_id"]


async def test_a_cancelled_file_is_reported_as_such(settings: Settings) -> None:
    reports: list[FileReport] = []

    class Slow(AIDataProcessor):
        async def _run_ai_analysis(self, data: Any) -> Any:
            await asyncio.sleep(60)

    async with Slow(settings=settings, on_file=reports.append) as processor:
        task = asyncio.ensure_future(processor.process_file(b'["lovely"]'))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [report.code for report in reports] == ["cancelled"]


async def test_a_hook_that_fails_harms_no_file(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: FileReport) -> None:
        raise RuntimeError("no")

    async with AIDataProcessor(settings=settings, on_file=broken) as processor:
        assert (await processor.process_file(b'["lovely"]'))["status"] == "success"
    assert "a hook failed" in caplog.text


async def test_what_is_logged_meanwhile_can_name_the_file_and_its_stage(settings: Settings) -> None:
    seen: list[dict[str, str]] = []

    class Curious(AIDataProcessor):
        async def _clean_data(self, data: Any) -> Any:
            seen.append(log_context())
            return await super()._clean_data(data)

    async with Curious(settings=settings) as processor:
        answer = await processor.process_file(b'["lovely"]')
        assert seen == [{"processing_id": answer["processing_id"], "stage": "clean"}]
        assert log_context() == {}
