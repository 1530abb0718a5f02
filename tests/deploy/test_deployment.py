"""What deploy/ promises: the image's own commands build, start, answer and stop; every file says what it should."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
NOBODY = 65534


def instructions(name: str) -> list[str]:
    """Return the arguments of every instruction of this kind, in order."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE.read_text(), re.M)


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that an ordinary user may run: a copy, where this one stands in the home of root."""
    here = Path(sys.base_prefix)
    if os.geteuid() != 0 or all(folder.stat().st_mode & 0o005 == 0o005 for folder in (here, *here.parents)):
        return Path(sys.executable)
    copy = tmp_path_factory.mktemp("interpreter") / "python"
    ours = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    left_out = shutil.ignore_patterns("test", "tests", "idlelib", "__pycache__", "site-packages", "config-3*", "*.a")
    shutil.copytree(here / "lib" / ours, copy / "lib" / ours, ignore=left_out)
    for library in (here / "lib").glob("libpython*.so*"):
        shutil.copy(library, copy / "lib")
    (copy / "bin").mkdir()
    shutil.copy(here / "bin" / ours, copy / "bin" / ours)
    for folder in copy.parents[:2]:
        folder.chmod(0o755)
    return copy / "bin" / ours


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, interpreter: Path) -> Iterator[Path]:
    """The tree that the build commands of the image leave, read-only; made without the repository around it."""
    build = tmp_path_factory.mktemp("build")
    installed = tmp_path_factory.mktemp("image") / "bulletproof"
    # Copied as the COPY instructions do, where .dockerignore lets them.
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, build)
    (build / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "app.lock", build / "requirements")
    shutil.copytree(ROOT / "src", build / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", str(build))}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    for command in instructions("RUN"):
        if command.startswith("useradd"):
            continue  # needs a container of its own
        command = command.replace("/opt/bulletproof", str(installed)).replace("--no-cache-dir ", "")
        command = re.sub(r"^python ", f"{shlex.quote(str(interpreter))} ", command)
        done = subprocess.run(
            ["sh", "-c", command], cwd=build, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    for folder in installed.parents[:2]:
        folder.chmod(0o755)
    shutil.rmtree(build)
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(installed)], check=True)
    yield installed
    subprocess.run(["chmod", "-R", "u+w", str(installed)], check=True)
    shutil.rmtree(installed)


class Container:
    """Runs the image's commands as an ordinary user whose only writable place is the data volume."""

    def __init__(self, image: Path, volume: Path, port: int) -> None:
        self.port = port
        self._volume = volume
        self._ordinary: dict[str, Any] = {}
        if os.geteuid() == 0:
            os.chown(volume, NOBODY, NOBODY)
            self._ordinary = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self._environment = {"PORT": str(port), "HOME": str(volume), "BULLETPROOF_API_KEYS": "a-key"}
        # Where the copied interpreter finds its own library.
        self._environment["LD_LIBRARY_PATH"] = str((image / "bin" / "python").resolve().parent.parent / "lib")
        for line in instructions("ENV"):
            for setting in shlex.split(line):
                name, _, value = setting.partition("=")
                value = value.replace("/opt/bulletproof", str(image)).replace("/data", str(volume))
                self._environment[name] = value.replace("$PATH", "/usr/bin:/bin")

    def start(self, command: list[str], **options: Any) -> "subprocess.Popen[str]":
        # The data folder of a system's own is the only place to write to, as under a read-only root.
        program = shutil.which(command[0], path=self._environment["PATH"])
        assert program is not None
        return subprocess.Popen(
            [program, *command[1:]], cwd=self._volume, env=self._environment, text=True, **self._ordinary, **options
        )


@pytest.fixture
def container(image: Path, tmp_path: Path) -> Container:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    volume = tmp_path / "data"
    volume.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    return Container(image, volume, port)


def wait_until_ready(address: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{address}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("not ready in thirty seconds")


@pytest.mark.timeout(400)
def test_the_image_runs_read_only_as_an_ordinary_user_is_healthy_and_stops_at_sigterm(container: Container) -> None:
    (start,) = (json.loads(line) for line in instructions("CMD"))
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (.*)$", DOCKERFILE.read_text(), re.M)
    service = container.start(start)
    try:
        address = f"http://127.0.0.1:{container.port}"
        wait_until_ready(address)
        assert container.start(json.loads(check)).wait(timeout=10) == 0
        assert httpx.post(f"{address}/process").status_code == 401
        files = {"file": ("reviews.csv", b"text\nI love it\nIt broke at once\n", "text/csv")}
        answer = httpx.post(f"{address}/process", files=files, headers={"X-API-Key": "a-key"}, timeout=60).json()
        assert answer["status"] == "success"
        assert answer["stored"]
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=40) in (0, -signal.SIGTERM)
    finally:
        service.kill()
        service.wait()


@pytest.mark.timeout(400)
def test_the_wheel_works_without_the_repository(container: Container) -> None:
    command = container.start(["bulletproof", "doctor", "--json"], stdout=subprocess.PIPE)
    out, _ = command.communicate(timeout=60)
    findings = {item["subject"]: item["status"] for item in json.loads(out)}
    assert findings["database"] == findings["local model"] == "ok"
    code = "import bulletproof, pathlib; print(pathlib.Path(bulletproof.__file__).parent / 'py.typed')"
    where, _ = container.start(["python", "-c", code], stdout=subprocess.PIPE).communicate(timeout=60)
    assert "site-packages" in where
    assert Path(where.strip()).is_file()


def test_the_image_needs_no_privileges_and_gets_its_signals() -> None:
    assert instructions("USER") == ["10001"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(instructions("CMD")[-1])[0] == "bulletproof"  # no shell stands between it and its signals


def test_railway_is_told_where_health_is_how_long_draining_takes_and_to_bind_every_address() -> None:
    railway = json.loads((ROOT / "railway.json").read_text())
    assert railway["build"] == {"builder": "DOCKERFILE", "dockerfilePath": "deploy/Dockerfile"}
    assert (ROOT / railway["build"]["dockerfilePath"]).is_file()
    assert railway["deploy"]["healthcheckPath"] == "/health/ready"
    assert type(railway["deploy"]["drainingSeconds"]) is int
    assert railway["deploy"]["startCommand"] == "bulletproof serve --host 0.0.0.0"


def test_compose_has_a_database_two_services_and_three_workers() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    assert set(compose["services"]) == {"postgres", "service-1", "service-2", "worker"}
    assert compose["services"]["worker"]["deploy"]["replicas"] == 3
    assert compose["services"]["worker"]["command"] == ["bulletproof", "worker"]
    for name in ("service-1", "service-2", "worker"):
        assert compose["services"][name]["read_only"] is True


def test_kubernetes_probes_the_routes_that_there_are() -> None:
    deployment, service = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    (pod,) = deployment["spec"]["template"]["spec"]["containers"]
    assert pod["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert pod["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert pod["securityContext"]["readOnlyRootFilesystem"] is True
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
