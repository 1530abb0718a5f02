"""Rules for HTTP clients and what lies below them."""

from bulletproof.errors.reading import links, read, text_of
from bulletproof.errors.registry import Verdict, family, final, register, rule

_REFUSED = Verdict(
    "service_unavailable",
    retryable=False,
    hint="Check the name, the clock and the certificate authorities of this machine: the certificate was refused.",
)

# httpx: https://www.python-httpx.org/exceptions/ (httpx2 and httpcore share its names)
for _client in ("httpx", "httpx2", "httpcore", "httpcore2"):
    family(_client, {final("bad_response"): "HTTPStatusError", "service_unavailable": "HTTPError"}, remote=True)
    family(
        _client,
        {
            "service_timeout": "TimeoutException",
            "overloaded": "PoolTimeout",
            "service_unavailable": "TransportError NetworkError ProxyError RemoteProtocolError ConnectionNotAvailable",
            "bad_response": "ProtocolError DecodingError",
            final("bad_response"): "TooManyRedirects",
            "internal_error": "StreamError LocalProtocolError CookieConflict",
            "invalid_input": "InvalidURL UnsupportedProtocol",
        },
    )

# aiohttp: https://docs.aiohttp.org/en/stable/client_reference.html#client-exceptions
family("aiohttp", {"service_unavailable": "ClientResponseError WSServerHandshakeError"}, remote=True)
family(
    "aiohttp",
    {
        "service_unavailable": "ClientError ClientConnectionError ServerDisconnectedError ClientConnectionResetError",
        "service_timeout": "ServerTimeoutError ConnectionTimeoutError SocketTimeoutError",
        _REFUSED: "ClientConnectorCertificateError ServerFingerprintMismatch",
        "bad_response": """ClientPayloadError HttpProcessingError WebSocketError WSHandshakeError
            compression_utils.TooManyMembersError""",
        final("bad_response"): "ContentTypeError TooManyRedirects WSMessageTypeError",
        "invalid_input": "client_exceptions.InvalidURL NonHttpUrlClientError",
        Verdict("cancelled", counts=False): "EofStream",
        "invalid_request": "RequestPayloadError PayloadAccessError",
    },
)

# requests: https://requests.readthedocs.io/en/latest/api/#exceptions
family("requests", {final("bad_response"): "HTTPError"}, remote=True)
family(
    "requests",
    {
        "service_unavailable": "RequestException ChunkedEncodingError RetryError ProxyError",
        "service_timeout": "Timeout ConnectTimeout ReadTimeout",
        "bad_response": "ContentDecodingError InvalidJSONError JSONDecodeError",
        final("bad_response"): "TooManyRedirects",
        "invalid_input": "InvalidURL InvalidSchema MissingSchema URLRequired InvalidHeader InvalidProxyURL",
        "internal_error": "StreamConsumedError UnrewindableBodyError CookieConflictError",
    },
)

# urllib3: https://urllib3.readthedocs.io/en/stable/reference/urllib3.exceptions.html
family(
    "urllib3",
    {
        "service_unavailable": "HTTPError NewConnectionError NameResolutionError RequestError",
        "service_timeout": "TimeoutError ReadTimeoutError ConnectTimeoutError",
        "overloaded": "EmptyPoolError FullPoolError",
        "bad_response": "DecodeError ResponseError HeaderParsingError IncompleteRead InvalidChunkLength InvalidHeader",
        "invalid_input": "LocationValueError ProxySchemeUnsupported",
        "internal_error": "ClosedPoolError UnrewindableBodyError BodyNotHttplibCompatible ResponseNotChunked",
        _REFUSED: "CertificateError",
    },
)
family("h11", {"internal_error": "ProtocolError LocalProtocolError", "service_unavailable": "RemoteProtocolError"})
family("h2", {"service_unavailable": "H2Error"})
family("websockets", {"service_unavailable": "WebSocketException", "invalid_input": "InvalidURI"})
family(
    "anyio",
    {
        "service_unavailable": "BrokenResourceError EndOfStream ConnectionFailed",
        "overloaded": "BusyResourceError WouldBlock",
        "bad_response": "IncompleteRead DelimiterNotFound",
        "internal_error": "ClosedResourceError TypedAttributeLookupError NoEventLoopError RunFinishedError",
        "io_error": "BrokenWorkerProcess BrokenWorkerInterpreter BrokenWorkerIntepreter",
        Verdict("cancelled", counts=False): "TaskCancelled FutureCancelled",
        Verdict("internal_error", defer="cause"): "TaskFailed FutureFailed",
    },
)


@rule(
    "openai.APIConnectionError", "anthropic.APIConnectionError", "mistralai.ConnectionError", "urllib3.MaxRetryError",
    "urllib3.SSLError", "requests.ConnectionError", "requests.SSLError", "aiohttp.ClientConnectorError",
    "aiohttp.ClientConnectorSSLError",
    *(f"{client}.ConnectError" for client in ("httpx", "httpx2", "httpcore", "httpcore2")),
)  # fmt: skip
def connection(error: BaseException) -> Verdict:
    """The service cannot be reached; a refused certificate will be refused again."""
    link: BaseException | None = error
    for _ in range(4):
        if link is None:
            break
        if refuses_certificate(link):
            return _REFUSED
        cause, context = links(link)
        link = cause or context
    return Verdict("service_unavailable")


@rule("ssl.SSLError")
def tls(error: BaseException) -> Verdict:
    """A certificate does not get better by trying again; a broken connection may."""
    return _REFUSED if refuses_certificate(error) else Verdict("service_unavailable")


@rule("urllib.error.URLError")
def url_error(error: BaseException) -> BaseException | Verdict:
    """A wrapper: its reason is the error, or a text."""
    reason = read(error, "reason")
    return reason if isinstance(reason, Exception) else Verdict("service_unavailable")


def refuses_certificate(error: BaseException) -> bool:
    """Whether a certificate is not trusted, by the words of OpenSSL."""
    return "CERTIFICATE_VERIFY_FAILED" in text_of(error) or read(error, "verify_code") is not None


register("service_unavailable", "urllib.error.ContentTooShortError")
register(final("bad_response"), "urllib.error.HTTPError", remote=True)
