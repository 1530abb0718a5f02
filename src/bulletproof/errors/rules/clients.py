"""Rules for HTTP clients and what lies below them."""

from bulletproof.errors.reading import links, read, text_of
from bulletproof.errors.registry import Verdict, register, rule

_REFUSED = Verdict(
    "service_unavailable",
    retryable=False,
    hint="Check the name, the clock and the certificate authorities of this machine: the certificate was refused.",
)

register(
    _REFUSED,
    "aiohttp.ClientConnectorCertificateError aiohttp.ServerFingerprintMismatch urllib3.CertificateError",
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
