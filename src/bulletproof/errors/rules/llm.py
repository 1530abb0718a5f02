"""Rules for the SDKs of language models and for the clouds that serve them."""

from bulletproof.errors.http import parse_body, status_of, verdict_of
from bulletproof.errors.reading import read, text_of
from bulletproof.errors.registry import Verdict, final, rule


@rule("openai.OpenAIError", "anthropic.AnthropicError")
def client_setup(error: BaseException) -> str:
    """Raised bare when the client is built without a key."""
    return "misconfigured" if "api_key" in text_of(error) else "internal_error"


_AWS = {
    "rate_limited": """throttling throttlingexception throttledexception requestthrottled requestthrottledexception
        toomanyrequestsexception provisionedthroughputexceededexception requestlimitexceeded bandwidthlimitexceeded
        slowdown priorrequestnotcomplete transactioninprogressexception ec2throttledexception""",
    "quota_exhausted": "servicequotaexceededexception limitexceededexception quotaexceededexception",
    "auth_failed": """accessdenied accessdeniedexception authfailure expiredtoken expiredtokenexception
        invalidclienttokenid unrecognizedclientexception invalidsignatureexception signaturedoesnotmatch
        invalidaccesskeyid missingauthenticationtoken notauthorized unauthorizedoperation""",
    "service_timeout": "requesttimeout requesttimeoutexception modeltimeoutexception",
    "service_unavailable": """internalerror internalfailure internalserverexception serviceunavailable
        serviceunavailableexception modelnotreadyexception modelstreamerrorexception""",
    "bad_response": "modelerrorexception",
}
_AWS_CODES = {name: code for code, names in _AWS.items() for name in names.split()}


@rule("botocore.exceptions.ClientError")
def aws(error: BaseException) -> Verdict:
    """By the error code that AWS answered: its statuses alone mislead (a throttled DynamoDB says 400).

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
    """
    body = parse_body(read(error, "response"))
    text = text_of(error)
    name = body.code if body is not None else text.partition("(")[2].partition(")")[0]
    code = _AWS_CODES.get(name.lower())
    if code is not None:
        neutral = code in ("auth_failed", "quota_exhausted")
        return Verdict(code, None, (body.message if body else None) or None, counts=not neutral)
    status = status_of(error)
    if status is not None and body is not None:
        return verdict_of(status, body, text)
    return Verdict("service_unavailable") if status is None and not name else Verdict("request_rejected", counts=False)


_GRPC = {
    "CANCELLED": Verdict("cancelled", counts=False),
    "INVALID_ARGUMENT": Verdict("request_rejected", counts=False),
    "DEADLINE_EXCEEDED": Verdict("service_timeout"),
    "NOT_FOUND": Verdict("request_rejected", counts=False),
    "ALREADY_EXISTS": Verdict("request_rejected", counts=False),
    "PERMISSION_DENIED": Verdict("auth_failed", counts=False),
    "RESOURCE_EXHAUSTED": Verdict("rate_limited"),
    "FAILED_PRECONDITION": Verdict("request_rejected", counts=False),
    "ABORTED": Verdict("service_unavailable"),
    "OUT_OF_RANGE": Verdict("request_rejected", counts=False),
    "UNIMPLEMENTED": Verdict("request_rejected"),
    "INTERNAL": Verdict("service_unavailable"),
    "UNAVAILABLE": Verdict("service_unavailable"),
    "DATA_LOSS": final("bad_response"),
    "UNAUTHENTICATED": Verdict("auth_failed", counts=False),
    "UNKNOWN": Verdict("service_unavailable"),
}


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
