"""URLs of databases, as people and hosts write them."""

import traceback
from pathlib import Path

import pytest

from bulletproof.errors import ConfigurationError
from bulletproof.store import ResultStore
from bulletproof.store.address import parse_address


def test_without_a_url_it_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    for url in (None, "", "  "):
        address = parse_address(url, tmp_path)
        assert (address.kind, address.path) == ("sqlite", tmp_path / "results.db")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////srv/data/results.db", "/srv/data/results.db"),
        ("sqlite+aiosqlite:////srv/data/results.db", "/srv/data/results.db"),
        ("SQLITE:////srv/my data/ü.db", "/srv/my data/ü.db"),
    ],
)
def test_sqlite_urls(url: str, path: str) -> None:
    assert str(parse_address(url, ".").path) == path


def test_relative_paths_are_relative_to_the_present_folder_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse_address("sqlite:///data/results.db", ".")
    monkeypatch.chdir("/")
    assert address.path == tmp_path / "data" / "results.db"


@pytest.mark.parametrize(
    ("url", "shown", "dsn"),
    [
        (
            "postgres://user:secret@ec2.example.com:5432/d1",
            "postgresql://ec2.example.com:5432/d1",
            "postgresql://user:secret@ec2.example.com:5432/d1",
        ),
        (
            "postgresql+psycopg2://user:secret@db/app?sslmode=require&channel_binding=require&connect_timeout=9",
            "postgresql://db/app",
            "postgresql://user:secret@db/app?sslmode=require",
        ),
        (
            "postgresql://user:s%23cr%40t@[::1]:5433/app",
            "postgresql://[::1]:5433/app",
            "postgresql://user:s%23cr%40t@[::1]:5433/app",
        ),
        (
            "postgresql://user:secret@one:1,two:2/app?target_session_attrs=primary",
            "postgresql://one:1,two:2/app",
            "postgresql://user:secret@one:1,two:2/app?target_session_attrs=primary",
        ),
        (
            "postgresql:///app?host=/run/postgresql&user=me&password=secret",
            "postgresql:///run/postgresql/app",
            "postgresql:///app?host=%2Frun%2Fpostgresql&user=me&password=secret",
        ),
    ],
)
def test_postgresql_urls_are_rewritten_for_the_driver_and_shown_without_credentials(
    url: str, shown: str, dsn: str
) -> None:
    address = parse_address(url, ".")
    assert (str(address), address.dsn) == (shown, dsn)
    assert "secret" not in repr(address)
    assert "secret" not in repr(ResultStore(url))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:secret@localhost/app",
        "secret",
        "secret://",
        "postgresql:/secret",
        "postgresql://user:sec#ret@host/app",
        "postgresql://user:12#secret@host/app",
        "postgresql://user:se/cret@host/app",
        "postgresql://user:secret@host:port/app",
        "postgresql://user:secret@host:54321234/app",
        "postgresql://user:secret@[::1/app",
        "postgresql://user:secret@host/app?secret",
        "sqlite://secret/results.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///results.db?key=secret",
    ],
)
def test_urls_that_make_no_sense_are_refused_at_once_without_showing_them(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ResultStore(url)
    text = "".join(traceback.format_exception(caught.value.with_traceback(None)))
    assert "secret" not in text.removeprefix("mysql").replace("begins with 'secret'", "")
    assert "cret@" not in text
    assert caught.value.hint


def test_the_driver_for_postgresql_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulletproof.store.address.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="not installed") as caught:
        ResultStore("postgresql://host/app")
    assert caught.value.code == "missing_dependency"
    assert "bulletproof-ai[postgres]" in caught.value.hint
