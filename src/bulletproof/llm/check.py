"""Is the LLM there, and does it have the model?"""

from bulletproof.errors import ConfigurationError
from bulletproof.errors.http import status_of
from bulletproof.llm.client import LLMClient
from bulletproof.llm.failures import decoding, translating
from bulletproof.resilience import timeout as time_limit
from bulletproof.settings import Settings

_WITHOUT_LIST = (400, 404, 405, 501)  # servers that do not list their models
_SHOWN = 8


async def check_connection(settings: Settings | None = None, *, timeout: float = 10.0) -> str:
    """Find out whether the configured LLM can be asked.

    Args:
        settings: By default those of the process.
        timeout: Seconds it may take.

    Returns:
        What was found, in words.

    Raises:
        ConfigurationError: Nothing sensible is configured, or the server does not have the model.
        AIError: The server cannot be reached, refuses the key, or answers rubbish.
    """
    async with LLMClient.from_settings(settings, timeout=timeout) as client:
        with translating(client.host):
            names = await _models(client, timeout)
        if not names:
            await client.complete([{"role": "user", "content": "Answer with the word: yes"}])
            return f"{client.host}: {client.model} answers"
        if client.model not in names:
            offered = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise ConfigurationError(
                f"{client.host} has no model {client.model!r}",
                hint=f"Set BULLETPROOF_LLM_MODEL to one that it has: {offered}.",
            )
        return f"{client.host}: reachable, has {client.model}"


async def _models(client: LLMClient, seconds: float) -> list[str]:
    try:
        async with time_limit(seconds):
            with decoding(client.host):
                return await client.models()
    except Exception as error:
        if status_of(error) in _WITHOUT_LIST:
            return []
        raise
