"""Model files from elsewhere, through a real web server that misbehaves and fsspec's own file systems."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from bulletproof.errors import CircuitOpenError, ModelLoadError
from bulletproof.models import fetch_model, load_ai_model, sha256_of
from bulletproof.resilience import BreakerRegistry, CircuitConfig, RetryPolicy
from support.web import Site

DATA = random.Random(7).randbytes(3_000_000)


@pytest.fixture
def breakers() -> BreakerRegistry:
    return BreakerRegistry(CircuitConfig(failure_threshold=3, timeout=30))


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def how(breakers: BreakerRegistry, waits: list[float]) -> dict[str, Any]:
    return {"breakers": breakers, "retry": RetryPolicy(max_attempts=3, base_delay=1, jitter="none", sleep=waits.append)}


@pytest.fixture
def memory() -> Iterator[str]:
    with fsspec.open("memory://bucket/model.onnx", "wb") as file:
        file.write(DATA)
    yield "memory://bucket/model.onnx"
    fsspec.filesystem("memory").store.clear()


def test_a_file_comes_whole(memory: str, tmp_path: Path, how: dict[str, Any]) -> None:
    path = fetch_model(memory, tmp_path / "model.onnx", **how)
    assert path == tmp_path / "model.onnx"
    assert path.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("local", ["models/a.onnx", "/models/a.onnx", Path("a.onnx")])
def test_local_paths_pass_through(local: Any, tmp_path: Path) -> None:
    assert fetch_model(local, tmp_path / "x") == Path(local)
    assert fetch_model("file:///models/a.onnx", tmp_path / "x") == Path("/models/a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told(memory: str, tmp_path: Path, how: dict[str, Any]) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch_model(memory, tmp_path / "m", progress=lambda *args: seen.append(args), **how)
    assert seen[-1] == (len(DATA), len(DATA))
    assert [count for count, _ in seen] == sorted(count for count, _ in seen)
    assert len(seen) > 1


def test_over_http(web: Site, tmp_path: Path, how: dict[str, Any]) -> None:
    web.put("/model.onnx", DATA)
    assert fetch_model(web.url("/model.onnx"), tmp_path / "m", **how).read_bytes() == DATA


def test_failures_that_pass_are_tried_again(web: Site, tmp_path: Path, how: dict[str, Any], waits: list[float]) -> None:
    assert fetch_model(web.url("/burst/model?fail=2"), tmp_path / "m", **how).stat().st_size > 0
    assert waits == [1, 2]


@pytest.mark.parametrize("kind", ["/reset", "/short", "/close", "/status/500", "/status/503", "/cut-chunks"])
def test_a_source_that_keeps_failing_leaves_nothing_behind(
    web: Site, tmp_path: Path, how: dict[str, Any], kind: str, waits: list[float]
) -> None:
    (tmp_path / "m").write_text("the one before")
    with pytest.raises(ModelLoadError) as caught:
        fetch_model(web.url(kind), tmp_path / "m", **how)
    assert kind in str(caught.value)
    assert caught.value.__cause__ is not None
    assert waits == [1, 2]
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the one before"]


def test_a_missing_file_is_not_tried_again(web: Site, tmp_path: Path, how: dict[str, Any], waits: list[float]) -> None:
    with pytest.raises(ModelLoadError, match="Model file not found: http://127"):
        fetch_model(web.url("/status/404"), tmp_path / "m", **how)
    with pytest.raises(ModelLoadError, match="Model file not found: memory://"):
        fetch_model("memory://bucket/none", tmp_path / "m", **how)
    assert waits == []


def test_a_host_that_failed_too_often_is_left_alone(web: Site, tmp_path: Path, how: dict[str, Any]) -> None:
    with pytest.raises(ModelLoadError):
        fetch_model(web.url("/status/503"), tmp_path / "m", **how)
    before = web.hits["/status/503"]
    with pytest.raises(CircuitOpenError, match=r"models from 127\.0\.0\.1"):
        fetch_model(web.url("/status/503"), tmp_path / "m", **how)
    assert web.hits["/status/503"] == before


def test_missing_files_say_nothing_about_their_host(tmp_path: Path) -> None:
    for _ in range(12):
        with pytest.raises(ModelLoadError, match="Model file not found"):
            fetch_model("memory://bucket/none", tmp_path / "m")


@pytest.mark.parametrize("path", ["/model.onnx", "/endless"])
def test_more_bytes_than_allowed_are_not_taken(web: Site, tmp_path: Path, how: dict[str, Any], path: str) -> None:
    web.put("/model.onnx", DATA)
    with pytest.raises(ModelLoadError, match="larger than the 2,000,000 bytes allowed") as caught:
        fetch_model(web.url(path), tmp_path / "m", max_bytes=2_000_000, **how)
    assert caught.value.code == "file_too_large"
    assert list(tmp_path.iterdir()) == []


def test_the_checksum_is_compared_before_the_file_appears(memory: str, tmp_path: Path, how: dict[str, Any]) -> None:
    with pytest.raises(ModelLoadError) as caught:
        fetch_model(memory, tmp_path / "m", sha256="0" * 64, **how)
    assert caught.value.code == "model_tampered"
    assert list(tmp_path.iterdir()) == []
    path = fetch_model(memory, tmp_path / "m", **how)
    assert fetch_model(memory, tmp_path / "n", sha256=sha256_of(path), **how).exists()


def test_a_file_system_whose_library_is_missing(tmp_path: Path, how: dict[str, Any]) -> None:
    with pytest.raises(ModelLoadError, match="s3://bucket/key needs s3fs") as caught:
        fetch_model("s3://bucket/key", tmp_path / "m", **how)
    assert (caught.value.code, caught.value.hint) == ("missing_dependency", "pip install s3fs")


def test_an_unknown_kind_of_address(tmp_path: Path, how: dict[str, Any]) -> None:
    with pytest.raises(ModelLoadError, match="Protocol not known: nope"):
        fetch_model("nope://x", tmp_path / "m", **how)


def test_a_folder_that_is_not_there(memory: str, tmp_path: Path, how: dict[str, Any], waits: list[float]) -> None:
    with pytest.raises(ModelLoadError, match="there is no such folder"):
        fetch_model(memory, tmp_path / "no" / "m", **how)
    assert waits == []


def test_the_port_is_told_and_what_to_check(tmp_path: Path, how: dict[str, Any]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free_port = probe.getsockname()[1]
    with pytest.raises(ModelLoadError) as caught:
        fetch_model(f"http://127.0.0.1:{free_port}/x", tmp_path / "m", **how)
    assert f"http://127.0.0.1:{free_port}/x cannot be fetched" in str(caught.value)
    assert caught.value.hint.startswith("Check the address, its port")


def test_no_secret_of_an_address_is_told(web: Site, tmp_path: Path, how: dict[str, Any]) -> None:
    url = web.url("/status/500?signature=hunter2").replace("http://", "http://user:swordfish@")
    with pytest.raises(ModelLoadError) as caught:
        fetch_model(url, tmp_path / "m", **how)
    assert "hunter2" not in str(caught.value)
    assert "swordfish" not in str(caught.value)


def test_a_model_loads_from_its_address(web: Site, tmp_path: Path) -> None:
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    joblib.dump(model, tmp_path / "model.joblib")
    web.put("/model.joblib", (tmp_path / "model.joblib").read_bytes())
    assert load_ai_model(web.url("/model.joblib")).predict([[1.0]]) == [1]
    digest = sha256_of(tmp_path / "model.joblib")
    assert load_ai_model(web.url("/model.joblib"), sha256=digest).predict([[0.0]]) == [0]
    for url in (web.url("/status/404"), "memory://bucket/none"):
        with pytest.raises(ModelLoadError, match=f"^Model file not found: {url.partition('://')[0]}://"):
            load_ai_model(url)
    with pytest.raises(ModelLoadError, match="this is a web page"):
        load_ai_model(web.url("/page/1"))
