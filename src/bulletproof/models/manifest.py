"""What is known of a model version: its file, what goes in, what comes out, what it may take."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
VERSION = re.compile(r"v[0-9]{1,6}\.[0-9]{1,6}(\.[0-9]{1,6})?")

NAMING = "lower case letters, digits, '-' and '_', at most 64, such as iris or spam-filter"
VERSIONING = "v, a number, a dot and a number, such as v1.0 or v2.13.1"

Name = Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
Version = Annotated[str, Field(pattern=rf"^{VERSION.pattern}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Word = Annotated[str, Field(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _refuse_twins(what: str, names: Sequence[str]) -> None:
    twin = next((name for name, count in Counter(names).items() if count > 1), None)
    if twin is not None:
        raise ValueError(f"there are two of the {what} {twin!r}: their names have to differ")


class Feature(_Part):
    """One number that goes in.

    Args:
        name: What it is.
        unit: What it is measured in; empty for none.
        type: ``float``, or ``int`` when only whole numbers are allowed.
        minimum: Least value allowed; None for no bound.
        maximum: Greatest value allowed; None for no bound.
    """

    name: Word
    unit: str = Field("", max_length=50)
    type: Literal["float", "int"] = "float"
    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"feature {self.name!r}: minimum {self.minimum:g} is above maximum {self.maximum:g}")
        return self


class InputSchema(_Part):
    """What goes in: rows of numbers, one for each feature.

    Args:
        features: In the order of the model's columns.
        max_rows: Most rows in one request.
    """

    features: tuple[Feature, ...] = Field(min_length=1, max_length=100_000)
    max_rows: int = Field(1000, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        _refuse_twins("feature", [feature.name for feature in self.features])
        return self


class OutputSchema(_Part):
    """What comes out.

    Args:
        kind: ``classification``: a class index and the probability of each class; ``regression``: a number.
        classes: Names of the classes in the order of the model's; for a classification.
        minimum: Least value of a regression; None for no bound.
        maximum: Greatest value of a regression; None for no bound.
    """

    kind: Literal["classification", "regression"] = "classification"
    classes: tuple[Word, ...] = Field((), max_length=100_000)
    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _classes_named(self) -> Self:
        if self.kind == "classification" and len(self.classes) < 2:
            raise ValueError("a classification needs the names of at least two classes")
        if self.kind == "regression" and self.classes:
            raise ValueError("a regression has no classes")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        _refuse_twins("class", self.classes)
        return self


class Limits(_Part):
    """What a prediction may take.

    Args:
        timeout_seconds: Longest time of one prediction.
        memory_bytes: Most memory of an isolated worker beyond what it has once the model is loaded; None for no bound.
        max_concurrent: Predictions under way at the same time; adapted downwards by how the model bears it.
        max_queued: Predictions that may wait; more are refused at once.
        batch_rows: Rows of concurrent requests that are joined into one call at most; 1 joins none.
        batch_wait_ms: Milliseconds a request waits for others to join it.
    """

    timeout_seconds: float = Field(10.0, gt=0, le=86_400)
    memory_bytes: int | None = Field(None, ge=1, lt=2**63)
    max_concurrent: int = Field(16, ge=1, le=10_000)
    max_queued: int = Field(256, ge=0, le=1_000_000)
    batch_rows: int = Field(1, ge=1, le=1_000_000)
    batch_wait_ms: float = Field(2.0, ge=0, le=10_000)


class Manifest(_Part):
    """One version of a model.

    Args:
        name: Lower case letters, digits, ``-`` and ``_``.
        version: As in ``v1.0``.
        type: Loader, such as ``onnx`` or ``sklearn``; ``remote`` for a model behind another server.
        file: Name of the file beside the manifest; for ``remote`` empty.
        sha256: Checksum of the file in hexadecimal digits; for ``remote`` empty.
        url: Address of a remote model.
        input: What goes in.
        output: What comes out.
        limits: What a prediction may take.
        isolated: Whether it runs in a worker process that can be killed alone.
        description: For people.
        created: When the version was added.

    Example:
        >>> Manifest(
        ...     name="iris", version="v1.0", type="onnx", file="model.onnx", sha256="0" * 64,
        ...     input=InputSchema(features=(Feature(name="petal length", unit="cm", minimum=0),)),
        ...     output=OutputSchema(classes=("setosa", "virginica")),
        ... ).limits.timeout_seconds
        10.0
    """

    name: Name
    version: Version
    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    file: FileName | Literal[""] = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    url: str = Field("", max_length=2000)
    input: InputSchema
    output: OutputSchema
    limits: Limits = Limits()
    isolated: bool = False
    description: str = Field("", max_length=2000)
    created: datetime | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Name and version."""
        return self.name, self.version

    @property
    def title(self) -> str:
        """Name and version, for people."""
        return f"{self.name} {self.version}"

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.type == "remote":
            if not self.url or self.file:
                raise ValueError("a remote model has a url and no file")
        elif not self.file or not self.sha256:
            raise ValueError("a model that is not remote needs its file and the sha256 of it")
        return self
