"""Which version of a model answers, and which one is tried out beside it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bulletproof.models.manifest import Version

ROLLOUT_FILE = "rollout.json"


class Candidate(BaseModel):
    """A version that is tried out.

    Args:
        version: Which one.
        share: Share of the requests that it gets, in (0, 1].
        mode: ``canary``: its answers are returned; ``shadow``: they are only compared with those of the active version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    version: Version
    share: float = Field(gt=0, le=1)
    mode: Literal["canary", "shadow"]


class Rollout(BaseModel):
    """Which version answers.

    Args:
        active: The one that answers requests that name no version.
        candidate: The one that is tried out, if any.

    Example:
        >>> Rollout(active="v1.0", candidate=Candidate(version="v1.1", share=0.1, mode="shadow")).candidate.share
        0.1
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    active: Version
    candidate: Candidate | None = None
