"""Whether a stage that failed is worth another try, and when."""

from collections.abc import Mapping

from bulletproof.errors import Diagnosis, should_retry_of
from bulletproof.pipeline.items import STAGES
from bulletproof.resilience import RetryPolicy
from bulletproof.resilience.attempts import matches

_NO_LIMIT = 1_000_000  # the item's own max_retries holds
DEFAULTS: dict[str, RetryPolicy] = {
    "download": RetryPolicy(max_attempts=_NO_LIMIT, base_delay=0.5, max_delay=30),
    "extract": RetryPolicy(max_attempts=_NO_LIMIT, base_delay=0.2, max_delay=5),
    "analyze": RetryPolicy(max_attempts=_NO_LIMIT, base_delay=0.5, max_delay=30),
    "store": RetryPolicy(max_attempts=_NO_LIMIT, base_delay=0.2, max_delay=10),
}
_MEANINGLESS = ("budget", "gate", "retry_on_result", "on_retry", "on_giveup")


def checked_policies(given: Mapping[str, RetryPolicy] | None) -> dict[str, RetryPolicy]:
    """Return the policy of every stage; a TypeError or ValueError says what cannot be honoured."""
    for stage, policy in (given or {}).items():
        if stage not in STAGES:
            raise ValueError(f"retry_policies: there is no stage {stage!r}; the stages are {', '.join(STAGES)}")
        if not isinstance(policy, RetryPolicy):
            raise TypeError(f"retry_policies[{stage!r}] must be a RetryPolicy, not {policy!r:.80}")
        for option in _MEANINGLESS:
            if getattr(policy, option) is not None:
                raise ValueError(
                    f"retry_policies[{stage!r}]: {option} has no meaning in a pipeline, whose queue makes the retries"
                )
    return DEFAULTS | dict(given or {})


def retries_allowed(given: Mapping[str, RetryPolicy] | None) -> int:
    """Return how many retries an item may have: 3, or more where a policy was given that allows more."""
    return max([3, *(policy.max_attempts - 1 for policy in (given or {}).values())])


def next_wait(
    policy: RetryPolicy, error: Exception, diagnosis: Diagnosis, *, attempt: int, waited: float, spent: float
) -> tuple[float | None, str]:
    """Decide after the try ``attempt`` (from 1), before which there was a wait of ``waited`` seconds.

    Returns the seconds until the next try, or None and why there is none; ``spent`` is the time since the first one.
    """
    if policy.retry_on is None:
        wanted = diagnosis.retryable
    else:
        wanted = matches(policy.retry_on, error) and should_retry_of(error) is not False
    if not wanted:
        return None, ""
    if attempt >= policy.max_attempts:
        return None, "no tries left"
    wait = diagnosis.retry_after
    if wait is None:
        wait = policy.waits.wait(attempt - 1, waited, policy.draw)
    elif wait > policy.max_retry_after:
        return None, f"asked to wait {wait:.0f} s, at most {policy.max_retry_after:g} s are allowed"
    if policy.deadline is not None and spent + wait >= policy.deadline:
        return None, f"the {policy.deadline:g} s allowed are over"
    return wait, ""
