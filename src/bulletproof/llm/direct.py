"""The simplest way to ask an LLM: one function, one prompt, one answer."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bulletproof.errors import InputValidationError
from bulletproof.llm.access import LLMAccess, import_sdk
from bulletproof.llm.failures import decoding, translating
from bulletproof.llm.pricing import PRICES
from bulletproof.llm.replies import read_completion
from bulletproof.resilience import ai_api_retry
from bulletproof.settings import load_settings

if TYPE_CHECKING:
    from openai import OpenAI


class _Default(str):
    """A default that can be told from the same text given by a caller."""

    __slots__ = ()


DEFAULT_MODEL: Final = _Default("gpt-3.5-turbo")


def call_openai_api(
    prompt: str,
    model: str = DEFAULT_MODEL,
    *,
    client: "OpenAI | None" = None,
    timeout: float | None = None,
    sleep: Callable[[float], Any] | None = None,
    rng: Any = random,
) -> str:
    """Ask an OpenAI-compatible service, and try again what is worth it.

    The service is that of ``BULLETPROOF_LLM_BASE_URL`` and ``BULLETPROOF_LLM_API_KEY``, else that of
    ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``. ``BULLETPROOF_LLM_MODEL``, if it is set, is asked when no model is
    given. Tries and waits are those of ``ai_api_retry``; how many is ``BULLETPROOF_LLM_MAX_ATTEMPTS``.

    Args:
        prompt: What to ask.
        model: Name of the model.
        client: A client of the OpenAI SDK to use instead of one made from the settings.
        timeout: Seconds one try may wait for the service; ``BULLETPROOF_LLM_TIMEOUT`` when None.
        sleep: Waits so many seconds between tries.
        rng: A ``random.Random``, or a function that gives numbers in [0, 1).

    Returns:
        The answer, never empty.

    Raises:
        ConfigurationError: There is no key, or a setting is wrong; says which variable to set.
        ServiceUnavailableError: The service cannot be reached (a ``ConnectionError`` too).
        ServiceTimeoutError: It does not answer in time (a ``TimeoutError`` too).
        RateLimitedError: It says: too many requests.
        ServiceAuthError: It refuses the key.
        BadResponseError: It answers something that cannot be used.
        InputValidationError: It refuses the content, the prompt is too long for it, or no text.

    Example:
        >>> call_openai_api("Say hello")  # doctest: +SKIP
        'Hello! How can I help you today?'
    """
    if not isinstance(prompt, str):
        raise InputValidationError(f"the prompt must be a text, not {type(prompt).__name__}", field="prompt")
    settings = load_settings()
    if model is DEFAULT_MODEL and "llm_model" in settings.model_fields_set:
        model = settings.llm_model
    retry = ai_api_retry(max_retries=settings.llm_max_attempts, base_delay=1, sleep=sleep, rng=rng)
    if client is not None:
        quiet = client.with_options(max_retries=0)
        if timeout is not None:
            quiet = quiet.with_options(timeout=timeout)
        return _answer(quiet, prompt, str(model), retry)
    access = LLMAccess.for_direct_call(settings, timeout=timeout)
    with import_sdk().OpenAI(**access.client_options()) as own:
        return _answer(own, prompt, str(model), retry)


def _answer(client: "OpenAI", prompt: str, model: str, retry: Any) -> str:
    host = client.base_url.netloc.decode("ascii", "replace")

    def ask() -> str:
        with decoding(host):
            answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])
        return read_completion(answer, host, model, PRICES).text

    ask.__qualname__ = "call_openai_api"
    with translating(host):
        text: str = retry(ask)()
    return text
