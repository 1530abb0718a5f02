"""What is fuzzed: by name, a function that takes bytes and says whether what came of them is right.

A target returns, or raises one of our typed errors; anything else that leaves it is a finding.
"""

from collections.abc import Callable
from typing import NamedTuple

from bulletproof.errors import AIError
from fuzz import files, service, web


class Target(NamedTuple):
    """One door for bytes from outside.

    Args:
        run: Takes the bytes.
        watched: Packages besides ours whose branches guide the fuzzer.
        seconds: CPU time that one input may take; documents are read in workers that are killed after 20 s.
        longest: Bytes of one input at most.
    """

    run: Callable[[bytes], None]
    watched: tuple[str, ...] = ()
    seconds: float = 2.0
    longest: int = 4096


TARGETS = {
    "csv": Target(files.csv_file),
    "gzip": Target(files.gzip_file, ("gzip",)),
    "html": Target(web.html, ("trafilatura",), seconds=20.0),
    "json": Target(files.json_file, ("json.decoder",)),
    "keys": Target(service.keys),
    "manifest": Target(service.manifest),
    "multipart": Target(service.form, ("python_multipart", "starlette.formparsers")),
    "pdf": Target(web.pdf, ("pypdf",), seconds=20.0),
    "predict": Target(service.prediction),
    "robots": Target(web.robots),
    "text": Target(files.text_file),
    "url": Target(web.address, ("idna",)),
    "webjson": Target(web.json_document),
}


def outcome(name: str, data: bytes) -> AIError | None:
    """Give a target its bytes; return the error that it refused them with, None when it took them."""
    try:
        TARGETS[name].run(data)
    except AIError as error:
        return error
    return None
