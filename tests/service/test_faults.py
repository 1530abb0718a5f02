"""What the machine may do to the service: disks that fill, folders that cannot be written, no file handles, no DNS, a
damaged database. Each with a real process, on a real file system of its own where there has to be one."""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

REVIEWS = {"file": ("reviews.csv", b"text\nI love it\nIt broke at once\n", "text/csv")}
ERROR_KEYS = {"error", "error_type", "details", "status", "code"}
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


class Service:
    """``bulletproof serve`` as a process of its own, which may live in namespaces of its own."""

    def __init__(self, folder: Path, port: int, prefix: list[str], **options: Any) -> None:
        environment = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "BULLETPROOF_DATA_DIR": str(folder / "data"),
            "BULLETPROOF_ANALYSIS_WORKERS": "0", "BULLETPROOF_LOG_FORMAT": "json", **options.pop("environment", {}),
        }  # fmt: skip
        self.log = folder / "log"
        command = [*prefix, sys.executable, "-m", "bulletproof", "serve", "--port", str(port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=folder, stderr=log, stdout=log, **options)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        # Where the process sees its files: its mounts may be its own.
        self.root = Path(f"/proc/{self.process.pid}/root")

    def wait(self) -> "Service":
        for _ in range(600):
            with suppress(httpx.TransportError):
                if self.client.get("/health/ready").status_code == 200:
                    return self
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.05)
        raise AssertionError("the service did not start in thirty seconds")

    def process_file(self) -> dict[str, Any]:
        """Send a file; the answer has to be typed, whatever it is."""
        answer = self.client.post("/process", files=REVIEWS)
        found: dict[str, Any] = answer.json()
        assert found["status"] == "success" or found.keys() >= ERROR_KEYS
        return found

    def stored_again(self, seconds: float = 20) -> dict[str, Any]:
        """Send files until one is stored."""
        limit = time.monotonic() + seconds
        while not (found := self.process_file()).get("stored"):
            assert time.monotonic() < limit, found
            time.sleep(0.2)
        return found

    def stop(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(40) in (0, -signal.SIGTERM)


@pytest.fixture
def run(tmp_path: Path, free_port: int) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(prefix: list[str] | None = None, **options: Any) -> Service:
        started.append(Service(tmp_path, free_port, prefix or [], **options))
        return started[-1].wait()

    yield start
    for service in started:
        if service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="module")
def namespace() -> list[str]:
    """The beginning of a command that has mounts of its own, of which nothing is left when it ends."""
    for command in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        with suppress(FileNotFoundError):
            probe = [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return command
    pytest.skip("neither root nor a user namespace may mount a file system here")


def mounted(namespace: list[str], mount: str, *arguments: object) -> list[str]:
    """A command that first mounts something; ``$1``, ``$2``... of it are the arguments."""
    script = f'{mount} && shift {len(arguments)} && exec "$@"'
    return [*namespace, "sh", "-c", script, "sh", *map(str, arguments)]


def test_a_full_disk_costs_no_answer_and_is_survived(run: Any, namespace: list[str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    small = mounted(namespace, 'mount -t tmpfs -o size=6m tmpfs "$1"', data)
    service = run(small, environment={"BULLETPROOF_MIN_FREE_DISK_BYTES": "0"})
    before = service.stored_again()
    filler = service.root / data.relative_to("/") / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    seen = [service.process_file() for _ in range(3)]
    assert [found["status"] for found in seen] == ["success"] * 3
    assert seen[-1]["stored"] is False
    assert seen[-1]["store_error"]["code"] in ("disk_full", "database_unavailable")
    assert any(found["store_error"]["code"] == "disk_full" for found in seen if not found["stored"])
    assert len(seen[-1]["results"]) == 2
    filler.unlink()
    after = service.stored_again()
    for found in (before, after):
        assert len(service.client.get(f"/results/{found['processing_id']}").json()["results"]) == 2


def test_uploads_are_refused_while_the_disk_is_nearly_full(run: Any, namespace: list[str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    service = run(mounted(namespace, 'mount -t tmpfs -o size=6m tmpfs "$1"', tmp_path / "data"))
    answer = service.client.post("/process", files=REVIEWS)
    assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
    assert "retry-after" in answer.headers
    assert service.client.get("/health").status_code == 200


def not_writable(service: Service) -> None:
    found = service.process_file()
    assert (found["status"], found["stored"], len(found["results"])) == ("success", False, 2)
    health = service.client.get("/health").json()
    assert health["status"] == "degraded"
    assert "BULLETPROOF_DATA_DIR" in health["components"]["store"]["hint"]
    assert "Traceback" not in service.log.read_text()
    answer = service.client.post("/batches", json={"urls": ["http://example.com/"]})
    assert (answer.status_code, answer.json()["error_type"]) == (503, "resource_error")


def test_a_disk_that_is_mounted_read_only_costs_no_answer(run: Any, namespace: list[str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    service = run(
        mounted(namespace, 'mount -t tmpfs -o ro tmpfs "$1"', tmp_path / "data"),
        environment={"BULLETPROOF_MIN_FREE_DISK_BYTES": "0"},
    )
    not_writable(service)


def ordinary() -> None:
    """Be held to the permissions of files, root or not."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0) == 0


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_may_not_be_written_to_costs_no_answer(run: Any, tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "of-others"
    data = folder / "data"
    (data if exists else folder).mkdir(parents=True)
    (data if exists else folder).chmod(0o555)
    try:
        service = run(preexec_fn=ordinary, environment={"BULLETPROOF_DATA_DIR": str(data)})
        not_writable(service)
        # Nothing has to be restarted when it may.
        (data if exists else folder).chmod(0o755)
        service.stored_again()
    finally:
        (data if exists else folder).chmod(0o755)


def test_without_file_handles_it_waits_or_answers_typed_and_goes_on_afterwards(run: Any, free_port: int) -> None:
    service = run()
    service.stored_again()
    pid = service.process.pid
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 8, used + 8))
    with ExitStack() as idle:
        for _ in range(40):
            idle.enter_context(socket.create_connection(("127.0.0.1", free_port)))
        limit = time.monotonic() + 20
        while len(list(Path(f"/proc/{pid}/fd").iterdir())) < used + 7:
            assert time.monotonic() < limit
            # This connection was there before, and is not idle: whoever is inside is answered.
            assert service.client.get("/health/live").status_code == 200
        for _ in range(3):
            service.process_file()
        assert service.client.get("/health/live").status_code == 200
    found = service.stored_again()
    assert httpx.get(f"http://127.0.0.1:{free_port}/results/{found['processing_id']}").status_code == 200
    assert service.process.poll() is None


def test_without_dns_pages_are_tried_again_and_the_others_go_on(
    run: Any, namespace: list[str], tmp_path: Path, web: Any
) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")  # where nobody answers
    broken = mounted(namespace, 'mount --bind "$1" /etc/resolv.conf', resolver)
    # Without robots.txt, whose absence would be remembered for a minute.
    allowed = {"BULLETPROOF_FETCH_ALLOW_HOSTS": "127.0.0.1", "BULLETPROOF_FETCH_RESPECT_ROBOTS": "false"}
    service = run(broken, environment=allowed)
    urls = ["http://pages.some-name.example.com/", web.url("/page/1")]
    answer = service.client.post("/batches", json={"urls": urls, "max_retries": 1})
    assert answer.status_code == 202, answer.text
    batch = answer.json()["batch_id"]
    limit = time.monotonic() + 60
    while service.client.get(f"/batches/{batch}").json()["status"] != "complete":
        assert time.monotonic() < limit, str(service.client.get(f"/batches/{batch}/items").json())[:1500]
        time.sleep(0.2)
    items = {item["url"]: item for item in service.client.get(f"/batches/{batch}/items").json()["items"]}
    assert items[urls[1]]["status"] == "success"
    assert (items[urls[0]]["status"], items[urls[0]]["code"]) == ("failed", "service_unavailable")
    assert items[urls[0]]["retry_count"] == 1
    assert service.client.get("/health").json()["components"]["store"]["status"] == "healthy"


def test_a_damaged_database_is_moved_aside_and_said_until_somebody_has_seen_to_it(run: Any, tmp_path: Path) -> None:
    service = run()
    lost = service.stored_again()["processing_id"]
    service.stop()
    file = tmp_path / "data" / "results.db"
    file.write_bytes(b"\0" * 5000)
    service = run()
    assert service.stored_again()["stored"]
    (aside,) = file.parent.glob("results.db.corrupt-*")
    assert aside.read_bytes() == b"\0" * 5000
    assert str(aside) in service.log.read_text()
    health = service.client.get("/health").json()
    assert health["status"] == "degraded"
    assert str(aside) in health["components"]["store"]["details"]
    assert ".recover" in health["components"]["store"]["hint"]
    assert service.client.get(f"/results/{lost}").status_code == 404
    service.stop()
    service = run()  # it is known after a restart too
    assert str(aside) in service.client.get("/health").json()["components"]["store"]["details"]
    aside.unlink()
    assert service.client.get("/health").json()["components"]["store"] == {"status": "healthy"}


def test_damaged_jobs_are_moved_aside_and_batches_go_on(run: Any, tmp_path: Path, web: Any) -> None:
    environment = {"BULLETPROOF_FETCH_ALLOW_HOSTS": "127.0.0.1", "BULLETPROOF_BATCH_CONCURRENCY": "0"}
    service = run(environment=environment)  # takes batches and works on none
    answer = service.client.post("/batches", json={"urls": [web.url("/page/1"), web.url("/page/2")]})
    assert answer.status_code == 202
    service.stop()
    file = tmp_path / "data" / "jobs.db"
    file.write_bytes(b"\0" * 5000)
    service = run(environment=environment | {"BULLETPROOF_BATCH_CONCURRENCY": "4"})
    limit = time.monotonic() + 60
    while (found := service.client.get(f"/batches/{answer.json()['batch_id']}").json())["status"] != "complete":
        assert time.monotonic() < limit, found
        time.sleep(0.2)
    assert found["success"] == 2
    (aside,) = file.parent.glob("jobs.db.corrupt-*")
    assert str(aside) in service.log.read_text()
    assert str(aside) in str(service.client.get("/health").json()["reasons"])


def test_a_database_that_is_damaged_while_running_costs_no_answer(run: Any, tmp_path: Path) -> None:
    service = run()
    service.stored_again()
    file = tmp_path / "data" / "results.db"
    for part in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        with part.open("r+b") as there:
            there.write(os.urandom(part.stat().st_size))
    seen = [service.process_file() for _ in range(5)]
    assert [found["status"] for found in seen] == ["success"] * 5
    service.stored_again()
    (aside,) = (path for path in file.parent.glob("results.db.corrupt-*") if not path.name.endswith(("-wal", "-shm")))
    assert str(aside) in str(service.client.get("/health").json()["reasons"])
