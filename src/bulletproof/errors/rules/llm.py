"""Rules for the SDKs of language models and for the clouds that serve them.

Most of their errors carry an HTTP status and a body, which go first; what stands here is for those that carry none.
"""

from bulletproof.errors.http import parse_body, status_of, verdict_of
from bulletproof.errors.reading import read, text_of
from bulletproof.errors.registry import Verdict, family, final, register, rule

_FILTERED = Verdict("content_filtered", counts=False)
_TOO_LONG = Verdict("context_length_exceeded", counts=False)

# OpenAI: https://platform.openai.com/docs/guides/error-codes; Anthropic: https://docs.anthropic.com/en/api/errors
for _sdk in ("openai", "anthropic"):
    family(
        _sdk,
        {
            "service_unavailable": "APIError ConflictError InternalServerError WebSocketConnectionClosedError",
            "request_rejected": """BadRequestError NotFoundError UnprocessableEntityError ContentTooLargeError
                ClientClosedRequestError PreconditionFailedError RequestHeaderFieldsTooLargeError""",
            "auth_failed": "AuthenticationError PermissionDeniedError CredentialsError WorkloadIdentityError",
            "rate_limited": "RateLimitError",
            "service_timeout": "RequestTimeoutError GatewayTimeoutError",
        },
        remote=True,
    )
    family(
        _sdk,
        {
            "service_timeout": "APITimeoutError",
            "bad_response": "APIResponseValidationError",
            final("bad_response"): "LengthFinishReasonError AgentOutputParseError",
            _FILTERED: "ContentFilterFinishReasonError",
            "quota_exhausted": """ContractSpendLimitReachedError EnforcedSpendLimitReachedError PaymentRequiredError
                OrganizationOnHoldError""",
            "overloaded": "WebSocketQueueFullError",
            "missing_dependency": "MissingDependencyError",
            "misconfigured": "MutuallyExclusiveAuthError APIRemovedInV1 ToolsetConfigError",
            "auth_failed": "SubjectTokenProviderError",
            "invalid_request": "InvalidWebhookSignatureError APIWebhookValidationError",
            "internal_error": """OpenAIError AnthropicError MissingStreamClassError ToolError FileStoreError
                SessionMemoryError ToolRunnerError DecisionsToolRunnerError BrowserError ComputerUseError""",
            "service_unavailable": """RetryableError ResponsesWebSocketError ResponsesWebSocketBufferError
                _TransientTokenExchangeError""",
            Verdict("cancelled", counts=False): "BrowserCancelledError",
        },
    )


@rule("openai.OpenAIError", "anthropic.AnthropicError")
def client_setup(error: BaseException) -> str:
    """Raised bare when the client is built without a key."""
    return "misconfigured" if "api_key" in text_of(error) else "internal_error"


# Google: https://ai.google.dev/gemini-api/docs/troubleshooting and google.api_core.exceptions
family(
    "google.genai",
    {
        "request_rejected": "ClientError",
        "service_unavailable": "APIError ServerError GenAiError GeminiNextGenAPIClientError",
        "service_timeout": "APITimeoutError",
        "bad_response": "APIResponseValidationError UnknownApiResponseError",
    },
    remote=True,
)
family(
    "google.genai",
    {
        "bad_response": "UnknownApiResponseError ResponseValidationError ContinuationInterruptedError",
        "service_unavailable": "NoResponseError",
        "internal_error": "UnsupportedFunctionError FunctionInvocationError UnknownFunctionCallArgumentError",
        "auth_failed": "EphemeralTokenAPIKeyError",
    },
)
family("google.api_core", {"service_unavailable": "GoogleAPIError", "bad_response": "BadGateway"}, remote=True)
family("google.api_core", {"service_timeout": "RetryError", "misconfigured": "DuplicateCredentialArgs"})
family("google.auth", {"auth_failed": "GoogleAuthError", "service_unavailable": "TransportError"})

# Cohere: https://docs.cohere.com/reference/errors; Mistral: https://github.com/mistralai/client-python#error-handling
family("cohere", {"service_unavailable": "ApiError"}, remote=True)
family("cohere", {"bad_response": "ParsingError SSEError", "service_unavailable": "CohereError"})
family("mistralai", {"service_unavailable": "MistralError SDKError ConnectorsGatewayError"}, remote=True)
family("mistralai", {"request_rejected": "HTTPValidationError"}, remote=True)
family(
    "mistralai",
    {
        "service_unavailable": """NoResponseError StreamDisconnectedError RealtimeSpeechWSError
            RealtimeTranscriptionWSError""",
        "bad_response": "ResponseValidationError RealtimeSpeechException RealtimeTranscriptionException",
        "auth_failed": "ServiceAccountTokenError MCPAuthException",
        "internal_error": "MistralClientException BatchError TracingErrors BlobNotFoundError",
        "misconfigured": "TelemetryConfigurationError",
    },
)

# LiteLLM: https://docs.litellm.ai/docs/exception_mapping
family(
    "litellm",
    {
        "request_rejected": "BadRequestError InvalidRequestError NotFoundError UnprocessableEntityError",
        "auth_failed": "AuthenticationError PermissionDeniedError",
        "rate_limited": "RateLimitError",
        "service_unavailable": """APIError APIConnectionError InternalServerError ServiceUnavailableError
            BaseLLMException CustomLLMError OpenAILikeError VertexAIError VLLMError HerokuError AlephAlphaError
            ProxyException AnthropicContextManagementError UpstreamFailure""",
    },
    remote=True,
)
family(
    "litellm",
    {
        _TOO_LONG: "ContextWindowExceededError",
        "service_timeout": "Timeout",
        "bad_response": """APIResponseValidationError JSONSchemaValidationError HTTPResponseLimitError StreamClosed
            RealtimeTranscriptionProtocolError ChirpProtocolError""",
        "quota_exhausted": "BudgetExceededError",
        Verdict("request_rejected", counts=False): "UnsupportedParamsError LiteLLMUnknownProvider ModelNotMappedError",
        _FILTERED: """ContentPolicyViolationError RejectedRequestError BlockedPiiEntityError
            GuardrailRaisedException SensitiveDataRouteException""",
        "rate_limited": "RouterRateLimitError RouterRateLimitErrorBasic",
        "auth_failed": "AwsAuthError UnauthorizedError _MetricsFailure ModelAccessDeniedProxyException",
        "service_unavailable": "A2AError CohereError TextCompletionCodestralError RedisCircuitBreakerOpenError",
        "blocked_url": "SSRFError",
    },
)

# Hugging Face: https://huggingface.co/docs/huggingface_hub/package_reference/utilities
family("huggingface_hub", {"service_unavailable": "HfHubHTTPError TextGenerationError"}, remote=True)
family(
    "huggingface_hub",
    {
        "model_load_failed": """RepositoryNotFoundError RevisionNotFoundError RevisionResolutionError EntryNotFoundError
            LocalEntryNotFoundError IncompleteSnapshotError NotASafetensorsRepoError SafetensorsParsingError
            FileMetadataError DDUFError CachedRepoTreeNotFoundError""",
        "auth_failed": "GatedRepoError DisabledRepoError LocalTokenNotFoundError OIDCError DeviceCodeError",
        "service_timeout": "InferenceTimeoutError InferenceEndpointTimeoutError",
        "service_unavailable": """InferenceEndpointError OverloadedError XetDownloadError SandboxError
            BucketEventsUnavailable""",
        final("service_unavailable"): "OfflineModeIsEnabled",
        "bad_response": "GenerationError IncompleteGenerationError UnknownError",
        "request_rejected": "ValidationError BadRequestError",
        "invalid_input": "HFValidationError HfUriError StrictDataclassError CLIError",
        "file_not_found": "CacheNotFound CorruptedCacheException",
    },
)


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


family(
    "botocore",
    {
        "misconfigured": "BotoCoreError",
        "service_unavailable": "HTTPClientError ConnectionError ConnectionClosedError EndpointDiscoveryException",
        final("service_unavailable"): "SSLError",
        "service_timeout": "ConnectTimeoutError ReadTimeoutError WaiterError",
        "bad_response": """ChecksumError FlexibleChecksumError IncompleteReadError ResponseStreamingError
            PaginationError eventstream.ParserError ResponseParserError AwsChunkedWrapperError""",
        "auth_failed": """NoCredentialsError PartialCredentialsError CredentialRetrievalError MetadataRetrievalError
            NoAuthTokenError TokenRetrievalError SSOError LoginError UnknownCredentialError ProfileNotFound
            RefreshWithMFAUnsupportedError""",
        "request_rejected": "ParamValidationError ValidationError MissingParametersError InvalidArnException",
        "missing_dependency": "MissingDependencyException MD5UnavailableError",
        "overloaded": "CapacityNotAvailableError",
        "internal_error": "StubResponseError UnknownClientMethodError OperationNotPageableError UnseekableStreamError",
    },
)
register("service_unavailable", "botocore.BadIMDSRequestError botocore._RetriesExceededError")

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


family(
    "grpc",
    {
        "service_timeout": "FutureTimeoutError framework.foundation.future.TimeoutError ExpirationError",
        Verdict("cancelled", counts=False): """FutureCancelledError framework.foundation.future.CancelledError
            CancellationError""",
        "internal_error": "UsageError InternalError BaseError NoSuchMethodError",
        "service_unavailable": "AbortError AbortionError AioRpcStatus _RequestCallError _WatchConnectivityFailed",
    },
)
