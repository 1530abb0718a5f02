"""Below a mark of free memory or disk no upload is taken, and everything else goes on."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bulletproof.errors import OverloadedError, ResourceError
from bulletproof.service import create_app
from bulletproof.service.watermarks import Watermarks, disk_left, memory_left
from bulletproof.settings import Settings


def machine(root: Path, available: int, files: dict[str, str]) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {available // 1024} kB\n")
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_without_a_control_group_the_machines_memory_counts(tmp_path: Path) -> None:
    assert memory_left(machine(tmp_path, 2**30, {})) == 2**30
    assert memory_left(tmp_path / "nowhere") is None


def test_in_a_container_its_own_limit_counts_and_caches_do_not(tmp_path: Path) -> None:
    newer = {"memory.max": "1000000\n", "memory.current": "900000\n", "memory.stat": "anon 1\ninactive_file 50000\n"}
    assert memory_left(machine(tmp_path / "new", 2**30, newer)) == 150_000
    older = {
        "memory/memory.limit_in_bytes": "1000000",
        "memory/memory.usage_in_bytes": "900000",
        "memory/memory.stat": "total_inactive_file 20000\n",
    }
    assert memory_left(machine(tmp_path / "old", 2**30, older)) == 120_000
    unlimited = {"memory.max": "max\n", "memory.current": "1", "memory.stat": ""}
    assert memory_left(machine(tmp_path / "unlimited", 2**30, unlimited)) == 2**30


def test_the_disk_is_that_of_the_folder_that_will_be(tmp_path: Path) -> None:
    assert disk_left(tmp_path / "not" / "yet") == disk_left(tmp_path)


def test_free_space_is_looked_at_a_few_times_a_second_at_most(tmp_path: Path) -> None:
    looks: list[int] = []
    times = iter([0.0, 0.0, 0.1, 0.2, 0.3, 0.3, 0.4, 0.5])
    marks = Watermarks(
        tmp_path, min_memory=1, min_disk=0, free_memory=lambda: looks.append(1) or 5, clock=lambda: next(times)
    )
    for _ in range(5):
        marks.check()
    assert len(looks) == 2


def test_what_is_short_is_named(tmp_path: Path) -> None:
    with pytest.raises(OverloadedError, match="memory is short") as caught:
        Watermarks(tmp_path, min_memory=2, min_disk=0, free_memory=lambda: 1).check()
    assert caught.value.retry_after
    with pytest.raises(ResourceError, match="disk of the data folder is nearly full") as full:
        Watermarks(tmp_path, min_memory=0, min_disk=2, free_disk=lambda _: 1).check()
    assert full.value.code == "disk_full"


@pytest.mark.parametrize(
    ("setting", "code"), [("min_free_memory_bytes", "overloaded"), ("min_free_disk_bytes", "disk_full")]
)
async def test_an_upload_is_refused_before_it_is_read_and_predictions_go_on(
    settings: Settings, client_of: Callable[..., httpx.AsyncClient], setting: str, code: str
) -> None:
    setattr(settings, setting, 2**60)
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        refused = await client.post("/process", files={"file": ("a.json", b'["good"]')})
        assert (refused.status_code, refused.json()["code"]) == (503, code)
        assert refused.headers["Retry-After"]
        assert (await client.post("/predict", json={"input_data": [5.1, 3.5, 1.4, 0.2]})).status_code == 200
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["components"]["resources"]["code"] == code
