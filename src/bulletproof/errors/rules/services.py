"""Rules for the SDKs of services and for the HTTP clients below them."""

from bulletproof.errors.registry import Verdict, register, rule
from bulletproof.errors.rules.stdlib import certificate

# OpenAI: https://platform.openai.com/docs/guides/error-codes
register("service_unavailable", "openai.OpenAIError openai.APIError openai.InternalServerError", remote=True)
register("request_rejected", "openai.BadRequestError openai.NotFoundError openai.UnprocessableEntityError", remote=True)
register("auth_failed", "openai.AuthenticationError openai.PermissionDeniedError", remote=True)
register("rate_limited", "openai.RateLimitError", remote=True)
register("service_unavailable", "openai.ConflictError", remote=True)
register("service_timeout", "openai.APITimeoutError")
register(Verdict("bad_response", retryable=False), "openai.LengthFinishReasonError")
register("bad_response", "openai.APIResponseValidationError")
register(Verdict("content_filtered", counts=False), "openai.ContentFilterFinishReasonError")

for _client in ("httpx", "httpx2", "httpcore", "httpcore2"):
    register("service_timeout", f"{_client}.TimeoutException")
    register("overloaded", f"{_client}.PoolTimeout")
    register("service_unavailable", f"{_client}.TransportError {_client}.NetworkError {_client}.ProxyError")
    register("service_unavailable", f"{_client}.HTTPStatusError {_client}.HTTPError", remote=True)
    register("bad_response", f"{_client}.ProtocolError {_client}.DecodingError {_client}.TooManyRedirects")
    register("service_unavailable", f"{_client}.RemoteProtocolError")
    register("internal_error", f"{_client}.StreamError {_client}.LocalProtocolError {_client}.CookieConflict")
    register("invalid_input", f"{_client}.InvalidURL {_client}.UnsupportedProtocol")


@rule(
    "openai.APIConnectionError", *(f"{client}.ConnectError" for client in ("httpx", "httpx2", "httpcore", "httpcore2"))
)
def connection(error: BaseException) -> Verdict:
    """The service cannot be reached; a refused certificate will be refused again."""
    link: BaseException | None = error
    for _ in range(4):
        if link is None:
            break
        refused = certificate(link)
        if refused is not None:
            return refused
        link = link.__cause__ or link.__context__
    return Verdict("service_unavailable")
