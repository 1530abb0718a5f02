"""One line that protects an SDK client people already have."""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

from bulletproof.llm import wrap_genai, wrap_stainless
from bulletproof.llm.client import Protection
from bulletproof.llm.listener import ErrorListener
from bulletproof.llm.ways import Shield

C = TypeVar("C")


def wrap(
    client: C,
    policy: Protection | None = None,
    fallbacks: Sequence[Any] = (),
    monitor: ErrorListener | None = None,
    *,
    service: str | None = None,
) -> C:
    """Protect a client of the openai, anthropic or google-genai SDK.

    The SDK's own retries are turned off; policy, classification and monitor take their place for every call, plain,
    asynchronous and streaming. Errors stay those of the SDK, but for answers that are no JSON and streams that break
    off, which SDKs let pass or raise as something else: these are ``BadResponseError``. A stream is tried again
    before its first item only; its first item is awaited when the stream is asked for.

    Args:
        client: ``openai.OpenAI``, ``anthropic.Anthropic``, their asynchronous twins and kin (such as
            ``AzureOpenAI``), or ``google.genai.Client``.
        policy: A ``Policy``, ``RetryPolicy``, breaker, or any decorator. By default three tries, a wait that all
            callers share when the service asks for one, and a breaker.
        fallbacks: What takes over, in order, when a call fails for good: the name of another model, another client of
            the same SDK (it may be wrapped itself), or a pair of both. Each gets a breaker of its own.
        monitor: Told of the end of each call; such as an ``AIErrorMonitor``.
        service: Names the service in figures and errors; by default its host.

    Returns:
        A client of the same type. It shares the connections of the one given, which stays as it was; only a client of
        google-genai, which cannot be copied, is protected in place and returned.

    Raises:
        TypeError: ``client`` or one of ``fallbacks`` is not such a client, or one waits and the other does not.

    Example:
        >>> import openai
        >>> client = wrap(openai.OpenAI(api_key="sk-test"), fallbacks=["gpt-4o-mini"])
        >>> type(client).__name__, client.max_retries
        ('OpenAI', 0)
    """
    family = next((family for family in (wrap_stainless, wrap_genai) if family.is_client(client)), None)
    if family is None:
        raise TypeError(
            f"cannot protect {type(client).__module__}.{type(client).__qualname__}: "
            "a client of openai, anthropic or google-genai is needed"
        )
    host_of_another = partial(family.host_of_another, client)
    shield = Shield.of(service or family.host_of(client), policy, monitor, fallbacks, host_of_another)
    protected: C = family.protect(client, shield)
    return protected
