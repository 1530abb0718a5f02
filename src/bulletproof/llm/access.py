"""Where the LLM is and how to be let in."""

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bulletproof.errors import ConfigurationError
from bulletproof.errors.installing import not_installed
from bulletproof.settings import Settings

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "not-needed"  # the SDK insists on one, and would take OPENAI_API_KEY for a server of somebody else


@dataclass(frozen=True, slots=True)
class LLMAccess:
    """Address, key and time limit of an OpenAI-compatible server: the public OpenAI service when no address is given.

    Example:
        >>> LLMAccess("http://localhost:11434/v1").host
        'localhost:11434'
        >>> LLMAccess(None)
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.ConfigurationError: there is no API key for https://api.openai.com/v1: set ...
    """

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 30.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigurationError(
                f"the address of the LLM is {self.url!r}, which is no http or https address",
                hint="Set BULLETPROOF_LLM_BASE_URL to something like http://localhost:11434/v1.",
            )
        key = self.api_key
        if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
            raise ConfigurationError(
                "the API key of the LLM has characters that cannot be sent, such as a line break",
                hint="Set BULLETPROOF_LLM_API_KEY (or OPENAI_API_KEY) again, without quotes or line breaks.",
            )
        if not key and _is_openai(self.url):
            raise ConfigurationError(
                f"there is no API key for {self.url}: set BULLETPROOF_LLM_API_KEY or OPENAI_API_KEY",
                hint="Set BULLETPROOF_LLM_API_KEY or OPENAI_API_KEY to a key, or BULLETPROOF_LLM_BASE_URL to the "
                "address of a server that needs none, such as http://localhost:11434/v1.",
            )

    @property
    def url(self) -> str:
        """The address in any case."""
        return self.base_url or OPENAI_URL

    @property
    def host(self) -> str:
        """Host and port; names the service in errors and figures."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @classmethod
    def for_direct_call(cls, settings: Settings, *, timeout: float | None = None) -> "LLMAccess":
        """Return what the settings say, else what the variables of the OpenAI SDK say.

        ``OPENAI_API_KEY`` goes to OpenAI and to ``OPENAI_BASE_URL`` only, not to a server that our settings name.
        """
        base_url = settings.llm_base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None
        key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else None
        if key is None and (settings.llm_base_url is None or _is_openai(settings.llm_base_url)):
            key = os.environ.get("OPENAI_API_KEY", "").strip() or None
        return cls(base_url, key, settings.llm_timeout if timeout is None else timeout)

    def client_options(self) -> dict[str, Any]:
        """Return the arguments for a client of the SDK, its own retries off."""
        key = self.api_key or NO_KEY
        return {"base_url": self.url, "api_key": key, "timeout": self.timeout, "max_retries": 0}


def _is_openai(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def import_sdk() -> Any:
    try:
        import openai
    except ImportError as error:
        raise not_installed(f"the openai package cannot be imported: {error}", "llm") from error
    return openai
