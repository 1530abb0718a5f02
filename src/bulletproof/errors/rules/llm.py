"""Rules for the SDKs of language models and for the clouds that serve them."""

from bulletproof.errors.http import parse_body, status_of, verdict_of
from bulletproof.errors.reading import read, text_of
from bulletproof.errors.registry import Verdict, rule, verdicts


@rule("openai.OpenAIError", "anthropic.AnthropicError")
def client_setup(error: BaseException) -> str:
    """Raised bare when the client is built without a key."""
    return "misconfigured" if "api_key" in text_of(error) else "internal_error"


_AWS = verdicts({
    "rate_limited": """throttling throttlingexception throttledexception requestthrottled requestthrottledexception
        toomanyrequestsexception provisionedthroughputexceededexception requestlimitexceeded bandwidthlimitexceeded
        slowdown priorrequestnotcomplete transactioninprogressexception ec2throttledexception""",
    "quota_exhausted, neutral": "servicequotaexceededexception limitexceededexception quotaexceededexception",
    "auth_failed, neutral": """accessdenied accessdeniedexception authfailure expiredtoken expiredtokenexception
        invalidclienttokenid unrecognizedclientexception invalidsignatureexception signaturedoesnotmatch
        invalidaccesskeyid missingauthenticationtoken notauthorized unauthorizedoperation""",
    "service_timeout": "requesttimeout requesttimeoutexception modeltimeoutexception",
    "service_unavailable": """internalerror internalfailure internalserverexception serviceunavailable
        serviceunavailableexception modelnotreadyexception modelstreamerrorexception""",
    "bad_response": "modelerrorexception",
})  # fmt: skip


@rule("botocore.exceptions.ClientError")
def aws(error: BaseException) -> Verdict:
    """By the error code that AWS answered: its statuses alone mislead (a throttled DynamoDB says 400).

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
    """
    body = parse_body(read(error, "response"))
    text = text_of(error)
    name = body.code if body is not None else text.partition("(")[2].partition(")")[0]
    verdict = _AWS.get(name.lower())
    if verdict is not None:
        return verdict._replace(details=(body.message if body else None) or None)
    status = status_of(error)
    if status is not None and body is not None:
        return verdict_of(status, body, text)
    return Verdict("service_unavailable") if status is None and not name else Verdict("request_rejected", counts=False)


# All others, known or not, are service_unavailable.
_GRPC = verdicts({
    "cancelled, neutral": "CANCELLED",
    "request_rejected, neutral": "INVALID_ARGUMENT NOT_FOUND ALREADY_EXISTS FAILED_PRECONDITION OUT_OF_RANGE",
    "request_rejected": "UNIMPLEMENTED",
    "auth_failed, neutral": "PERMISSION_DENIED UNAUTHENTICATED",
    "service_timeout": "DEADLINE_EXCEEDED",
    "rate_limited": "RESOURCE_EXHAUSTED",
    "bad_response, final": "DATA_LOSS",
})  # fmt: skip


@rule("grpc.RpcError")
def grpc(error: BaseException) -> Verdict:
    """By the status code: https://grpc.io/docs/guides/status-codes/."""
    code, details = (_called(read(error, name)) for name in ("code", "details"))
    name = read(code, "name")
    if not isinstance(name, str):
        name = text_of(error).partition("StatusCode.")[2].split(" ")[0].strip('",;')
    verdict = _GRPC.get(name, Verdict("service_unavailable"))
    return verdict._replace(details=details) if isinstance(details, str) and details else verdict


def _called(method: object) -> object:
    return method() if callable(method) else None
