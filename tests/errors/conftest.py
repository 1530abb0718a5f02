"""Stand-ins for exceptions of libraries that are not installed: same qualified names, same base classes."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HERE = Path(__file__).parent


class Catalogue:
    """The classes in ``exceptions.tsv`` and ``documented.tsv``, built on demand without their libraries."""

    def __init__(self) -> None:
        self.bases: dict[str, str] = {}
        for table in ("exceptions.tsv", "documented.tsv"):
            lines = (HERE / table).read_text(encoding="utf-8").splitlines()
            self.bases.update(line.split("\t") for line in lines if line and not line.startswith("# "))
        self._built: dict[str, type] = {}
        self._public: dict[tuple[str, str], str] = {}
        for name in self.bases:
            self._public.setdefault((name.split(".")[0].lstrip("_"), name.rsplit(".", 1)[-1]), name)

    def full_name(self, documented: str) -> str:
        """Return where a class is defined that the documentation calls ``package.Class``."""
        if documented in self.bases:
            return documented
        return self._public.get((documented.split(".")[0], documented.rsplit(".", 1)[-1]), documented)

    def build(self, name: str) -> type:
        """Return a class of that name whose bases are those of the real one."""
        if name not in self._built:
            self._built[name] = self._real(name) or self._stand_in(name)
        return self._built[name]

    def _real(self, name: str) -> type | None:
        module, _, cls = name.rpartition(".")
        if module and module.split(".")[0] not in {
            "json",
            "ssl",
            "socket",
            "http",
            "_queue",
            "queue",
            "asyncio",
            "enum",
        }:
            return None
        found = getattr(importlib.import_module(module or "builtins"), cls, None)
        return found if isinstance(found, type) and issubclass(found, BaseException) else None

    def _stand_in(self, name: str) -> type:
        bases = tuple(self.build(base) for base in self.bases.get(name, "Exception").split() if self._known(base))
        module, _, cls = name.rpartition(".")
        namespace = {"__module__": module, "__str__": lambda self: self.__dict__.get("_text", "")}
        return type(cls, bases or (Exception,), namespace)

    def _known(self, base: str) -> bool:
        return base in self.bases or self._real(base) is not None


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture(scope="session")
def stand_in(catalogue: Catalogue) -> Callable[..., BaseException]:
    """Return a function that builds an exception by name, with status, text and body where its SDK keeps them."""

    def build(name: str, text: str = "", status: str = "", body: Any = None) -> BaseException:
        cls = catalogue.build(catalogue.full_name(name))
        error = cls.__new__(cls)
        if "." not in cls.__qualname__ and cls.__module__ == "builtins":
            return cls(text) if cls is not UnicodeDecodeError and cls is not UnicodeEncodeError else error
        error.args = (text,)
        error.__dict__["_text"] = text
        package = cls.__module__.split(".")[0]
        if status and package == "grpc":
            error.__dict__.update(code=lambda: SimpleNamespace(name=status), details=lambda: text)
        elif package == "botocore":
            error.__dict__["response"] = {**(body or {}), "ResponseMetadata": {"HTTPStatusCode": int(status or 0)}}
        elif status and package in ("httpx", "httpx2", "requests", "huggingface_hub"):
            error.__dict__["response"] = SimpleNamespace(status_code=int(status), headers={})
        elif status:
            attribute = {"google": "code", "aiohttp": "status", "urllib": "code"}.get(package, "status_code")
            error.__dict__[attribute] = int(status)
        if body is not None and package != "botocore":
            error.__dict__["details" if package == "google" else "body"] = body
        return error

    return build
