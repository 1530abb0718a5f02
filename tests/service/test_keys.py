"""API keys: hashed at rest, several, each for what it is for, until it expires or is taken back."""

import json
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from bulletproof.cli.main import app as command
from bulletproof.errors import AccessDeniedError, ConfigurationError, InputValidationError
from bulletproof.service import create_app
from bulletproof.service.keys import SCOPES, KeyRing, create_key, read_keys, revoke_key
from bulletproof.settings import Settings

ASKED = {"X-Requested-With": "test"}


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        self.at += 2
        return self.at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_kept_as_a_digest_in_a_file_for_its_owner_alone(path: Path) -> None:
    key, secret = create_key(path, "shop")
    assert secret not in path.read_text()
    assert key.digest == sha256(secret.encode()).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_made_while_the_service_runs_is_known_and_a_revoked_one_refused(path: Path) -> None:
    ring = KeyRing((), path, clock=Clock())
    assert not ring.wanted
    _, secret = create_key(path, "shop")
    found = ring.find(secret)
    assert found is not None
    assert found.name == "shop"
    revoke_key(path, "shop")
    with pytest.raises(AccessDeniedError, match="revoked"):
        ring.find(secret)


def test_the_last_keys_end_does_not_open_the_door(path: Path) -> None:
    create_key(path, "shop")
    ring = KeyRing((), path, clock=Clock())
    revoke_key(path, "shop")
    assert ring.wanted
    path.unlink()
    assert ring.wanted


def test_an_expired_key_is_refused(path: Path) -> None:
    _, secret = create_key(path, "shop", expires=datetime.now(UTC) + timedelta(days=1))
    later = datetime.now(UTC) + timedelta(days=2)
    with pytest.raises(AccessDeniedError, match="expired"):
        KeyRing((), path, now=lambda: later).find(secret)


def test_the_settings_take_keys_and_digests() -> None:
    ring = KeyRing(["plain", "sha256:" + sha256(b"hashed").hexdigest()])
    assert ring.find("plain") is not None
    assert ring.find("hashed") is not None
    assert ring.find("sha256:" + sha256(b"hashed").hexdigest()) is None
    with pytest.raises(ConfigurationError, match="64 hexadecimal"):
        KeyRing(["sha256:zz"])


async def test_keys_that_can_be_guessed_are_warned_of_once_and_not_shown(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.api_keys = tuple(map(SecretStr, ("hunter2", "q" * 15, "z" * 16, "sha256:" + sha256(b"k").hexdigest())))
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        pass
    [told] = [record.getMessage() for record in caplog.records if "BULLETPROOF_API_KEYS" in record.getMessage()]
    assert told.startswith("2 of the 4 keys")
    assert "bulletproof keys create" in told
    assert not any(key in told for key in ("hunter2", "qq"))


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(path: Path) -> None:
    path.write_text("a file")
    with pytest.raises(ConfigurationError, match="Not a directory") as caught:
        create_key(path / "data" / "keys.json", "shop")
    assert str(path / "data") in str(caught.value)
    assert "BULLETPROOF_DATA_DIR" in str(caught.value.hint)


def test_names_are_given_once_and_scopes_are_known(path: Path) -> None:
    create_key(path, "shop")
    with pytest.raises(InputValidationError, match="already"):
        create_key(path, "shop")
    with pytest.raises(InputValidationError, match="unknown scopes fly"):
        create_key(path, "other", ("fly",))
    with pytest.raises(InputValidationError, match="there are: shop"):
        revoke_key(path, "nobody")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"keys": 5}', b'{"keys": [{"name": 1}]}', b"\xff", b"[]"])
def test_a_broken_key_file_opens_nothing_and_says_so(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        KeyRing((), path)


@pytest.mark.parametrize(
    ("scope", "method", "path", "allowed"),
    [
        ("read", "GET", "/metrics", True),
        ("read", "POST", "/process", False),
        ("process", "POST", "/process", True),
        ("process", "GET", "/runs", False),
        ("process", "POST", "/breakers/database/reset", False),
        ("operate", "POST", "/breakers/database/reset", True),
        ("process", "GET", "/health/live", True),
    ],
)
async def test_a_key_may_do_what_it_is_for(
    settings: Settings, client_of: Callable[..., Any], scope: str, method: str, path: str, allowed: bool
) -> None:
    _, secret = create_key(settings.keys_path, "one", (scope,))
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app, peer="192.0.2.1") as client:
        files = {"file": ("a.json", b'["good"]')} if path == "/process" else None
        response = await client.request(method, path, headers={"X-API-Key": secret, **ASKED}, files=files)
    assert (response.status_code == 200) is allowed
    if not allowed:
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        assert f"may {scope}" in response.json()["details"]


async def test_a_key_of_the_file_and_one_of_the_settings_are_both_taken(
    settings: Settings, client_of: Callable[..., httpx.AsyncClient]
) -> None:
    settings.api_keys = (SecretStr("configured"),)
    _, secret = create_key(settings.keys_path, "filed")
    async with client_of(create_app(settings)) as client:
        for key, status in (("configured", 200), (secret, 200), ("another", 401)):
            assert (await client.get("/breakers", headers={"X-API-Key": key})).status_code == status
        assert (await client.get("/breakers")).status_code == 401


def test_the_command_makes_lists_and_revokes_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULLETPROOF_DATA_DIR", str(tmp_path))
    made = CliRunner().invoke(command, ["keys", "create", "shop", "--scope", "process", "--days", "30"])
    assert made.exit_code == 0
    secret = made.stdout.strip()
    (key,) = read_keys(tmp_path / "keys.json")
    assert key.digest == sha256(secret.encode()).hexdigest()
    assert key.scopes == ("process",)
    (row,) = json.loads(CliRunner().invoke(command, ["keys", "list", "--json"]).stdout)
    assert (row["name"], row["state"], row["scopes"]) == ("shop", "valid", ["process"])
    assert secret not in CliRunner().invoke(command, ["keys", "list"]).stdout
    assert CliRunner().invoke(command, ["keys", "revoke", "shop"]).exit_code == 0
    assert "revoked" in CliRunner().invoke(command, ["keys", "list"]).stdout


@pytest.mark.parametrize("days", ["inf", "1e18", "-1", "nan"])
def test_days_that_no_calendar_has_are_wrong_use(days: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULLETPROOF_DATA_DIR", str(tmp_path))
    done = CliRunner().invoke(command, ["keys", "create", "shop", "--days", days])
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])


def test_serving_without_the_service_installed_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BULLETPROOF_DATA_DIR", str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("bulletproof.service")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.requests", None)
    done = CliRunner().invoke(command, ["serve", "--port", "0"])
    assert getattr(done.exception, "code", None) == "missing_dependency"


def test_every_scope_has_a_meaning_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    assert [scope for scope in SCOPES if f"`{scope}`" not in text] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("digest", 5),
        ("digest", "é" * 64),
        ("digest", "0" * 63),
        ("scopes", "read"),
        ("scopes", ["fly"]),
        ("revoked", "no"),
        ("expires", "2030-01-01T00:00:00"),
        ("more", 1),
    ],
)
def test_a_key_file_with_a_wrong_value_is_refused_as_a_whole(path: Path, field: str, value: object) -> None:
    create_key(path, "shop")
    body = json.loads(path.read_text())
    body["keys"][0][field] = value
    path.write_text(json.dumps(body))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KeyRing((), path)


def test_a_key_file_nested_without_end_is_refused(path: Path) -> None:
    path.write_bytes(b'{"keys":' + b"[" * 100_000)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KeyRing((), path)


@pytest.mark.parametrize("what", ["broken", "unreadable", "gone"])
async def test_a_key_file_that_breaks_meanwhile_locks_nobody_out_and_lets_nobody_in(
    settings: Settings, client_of: Callable[..., Any], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    now = 1e12
    _, secret = create_key(settings.keys_path, "one")
    app = create_app(settings)
    app.state.services.keys._clock = lambda: now
    good, path = settings.keys_path.read_text(), settings.keys_path
    async with app.router.lifespan_context(app), client_of(app, peer="192.0.2.1") as client:
        path.unlink()
        if what == "broken":
            path.write_text('{"keys": [')
        elif what == "unreadable":
            path.mkdir()
        for _ in range(3):
            now += 2
            assert (await client.get("/breakers", headers={"X-API-Key": secret})).status_code == 200
            assert (await client.get("/breakers", headers={"X-API-Key": "another"})).status_code == 401
            assert (await client.get("/breakers")).status_code == 401
        told = [record for record in caplog.records if "the 1 keys that were read before still hold" in record.message]
        assert len(told) == 1
        health = (await client.get("/health", headers={"X-API-Key": secret})).json()
        assert health["status"] == "degraded"
        assert health["components"]["keys"]["status"] == "degraded"
        assert "Restore the file" in health["components"]["keys"]["hint"]
        assert any(str(path) in reason for reason in health["reasons"])

        if what == "unreadable":
            path.rmdir()
        path.write_text(good)
        now += 2
        health = (await client.get("/health", headers={"X-API-Key": secret})).json()
        assert health["components"]["keys"] == {"status": "healthy"}


async def test_a_key_file_that_is_emptied_meanwhile_opens_no_door(settings: Settings, client_of: Any) -> None:
    now = 1e12
    create_key(settings.keys_path, "one")
    app = create_app(settings)
    app.state.services.keys._clock = lambda: now
    async with client_of(app) as client:
        assert (await client.get("/breakers")).status_code == 401
        settings.keys_path.write_text('{"schema": 1, "keys": []}')
        now += 2
        assert (await client.get("/breakers")).status_code == 401
