"""Settings: where they come from, what is refused, and that the docs name them all."""

from pathlib import Path

import pytest

from bulletproof.errors import ConfigurationError
from bulletproof.settings import Settings, describe_settings, load_settings

DOCS = Path(__file__).resolve().parent.parent / "docs" / "configure.md"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULLETPROOF_INLINE_RESULTS", "7")
    monkeypatch.setenv("BULLETPROOF_API_KEYS", "one, two,,")
    settings = load_settings()
    assert settings.inline_results == 7
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]


def test_the_port_of_the_platform_is_taken_unless_ours_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1234")
    assert load_settings().port == 1234
    monkeypatch.setenv("BULLETPROOF_PORT", "4321")
    assert load_settings().port == 4321


@pytest.mark.parametrize(
    "variable", ["BULLETPROOF_DATABASE_URL", "BULLETPROOF_LLM_BASE_URL", "BULLETPROOF_LLM_API_KEY"]
)
def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, " ")
    settings = load_settings()
    assert settings.database_url is None
    assert not settings.llm_configured


def test_a_key_meant_for_another_program_configures_no_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-program")
    assert not load_settings().llm_configured


def test_a_wrong_value_is_refused_with_its_name_and_without_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULLETPROOF_LLM_TIMEOUT", "s3cret")
    with pytest.raises(ConfigurationError, match="BULLETPROOF_LLM_TIMEOUT") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


def test_secrets_do_not_show() -> None:
    settings = Settings(llm_api_key="sk-secret", api_keys="key-secret", database_url="postgresql://u:secret@h/d")  # type: ignore[arg-type]
    assert "secret" not in repr(settings)


def test_the_docs_name_every_setting_with_its_default_and_meaning() -> None:
    text = DOCS.read_text()
    for variable, default, description in describe_settings():
        assert f"| `{variable}` | {f'`{default}`' if default else ''} | {description} |" in text
