"""Rules for Python itself and its standard library."""

import errno
import re

from bulletproof.errors.reading import read, text_of
from bulletproof.errors.registry import Verdict, register, rule
from bulletproof.errors.rules.wording import worded

register(
    Verdict("cancelled", counts=False),
    """KeyboardInterrupt SystemExit GeneratorExit asyncio.CancelledError concurrent.futures.CancelledError
    trio.Cancelled""",
)

# A bug, ours or the caller's: what it was raised under does not excuse it.
register(
    "internal_error",
    """ArithmeticError AssertionError AttributeError BufferError EOFError LookupError NameError NotImplementedError
    RecursionError ReferenceError StopAsyncIteration StopIteration SyntaxError SystemError TypeError Warning
    queue.Empty asyncio.InvalidStateError concurrent.futures.InvalidStateError asyncio.QueueEmpty struct.error
    copy.Error inspect.EndOfBlock locale.Error weakref.ReferenceError subprocess.CalledProcessError""",
)
register(Verdict("internal_error", defer="cause"), "ValueError", wording=worded)
register(Verdict("internal_error", defer="context"), "RuntimeError Exception BaseException", wording=worded)
register("out_of_memory", "MemoryError")
register("missing_dependency", "ImportError")

# Data that cannot be read.
register("invalid_encoding", "UnicodeError")
register("invalid_json", "json.JSONDecodeError")
register("invalid_csv", "_csv.Error csv.Error")
register(
    "invalid_archive",
    """zipfile.BadZipFile zipfile.LargeZipFile gzip.BadGzipFile zlib.error lzma.LZMAError _lzma.LZMAError
    tarfile.TarError""",
)
register("model_load_failed", "pickle.PickleError _pickle.PickleError")
register(
    "invalid_input",
    """binascii.Error xml.etree.ElementTree.ParseError xml.parsers.expat.ExpatError pyexpat.ExpatError
    xml.sax.SAXException html.parser.HTMLParseError tomllib.TOMLDecodeError plistlib.InvalidFileException
    email.errors.MessageError wave.Error ipaddress.AddressValueError ipaddress.NetmaskValueError""",
)
register("misconfigured", "configparser.Error zoneinfo.ZoneInfoNotFoundError")

# Time and capacity.
register("deadline_exceeded", "multiprocessing.TimeoutError subprocess.TimeoutExpired")
register("overloaded", "queue.Full asyncio.QueueFull")

# The network.
register("service_timeout", "TimeoutError")
register("service_unavailable", "ConnectionError socket.gaierror socket.herror http.client.HTTPException")
register(
    "bad_response",
    """http.client.BadStatusLine http.client.IncompleteRead http.client.LineTooLong http.client.UnknownProtocol
    asyncio.IncompleteReadError asyncio.LimitOverrunError""",
)
register("service_unavailable", "http.client.RemoteDisconnected urllib.error.ContentTooShortError")
register("service_unavailable", "urllib.error.HTTPError", remote=True)
register("internal_error", "http.client.CannotSendRequest http.client.CannotSendHeader http.client.ResponseNotReady")
register("invalid_input", "http.client.InvalidURL")
register("service_unavailable", "smtplib.SMTPException ftplib.Error imaplib.error poplib.error_proto")

_BY_ERRNO = {
    "disk_full": (errno.ENOSPC, errno.EDQUOT),
    "out_of_memory": (errno.ENOMEM,),
    "overloaded": (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOBUFS),
    "file_not_found": (errno.ENOENT, errno.ENOTDIR),
    "permission_denied": (errno.EACCES, errno.EPERM),
    "invalid_input": (errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST),
    "misconfigured": (errno.EADDRINUSE, errno.EROFS),
    "service_timeout": (errno.ETIMEDOUT,),
    "service_unavailable": (
        errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ENETUNREACH, errno.EHOSTUNREACH,
        errno.ENETDOWN, errno.ENETRESET, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.ENOTCONN, errno.ESHUTDOWN,
    ),
}  # fmt: skip
_CODE_OF_ERRNO = {number: code for code, numbers in _BY_ERRNO.items() for number in numbers}

register("file_not_found", "FileNotFoundError NotADirectoryError")
register("permission_denied", "PermissionError")
register("invalid_input", "IsADirectoryError FileExistsError")
register("overloaded", "BlockingIOError")
register(
    "io_error",
    "InterruptedError ProcessLookupError ChildProcessError shutil.Error io.UnsupportedOperation",
)


@rule("OSError")
def os_error(error: BaseException) -> Verdict | str:
    """By the number that the operating system gave; ``[Errno 28]`` in the text serves as well."""
    number = read(error, "errno")
    if not isinstance(number, int):
        match = re.match(r"\[Errno (\d+)\]", text_of(error))
        number = int(match[1]) if match else None
    code = _CODE_OF_ERRNO.get(number) if number is not None else None
    return code if code is not None else Verdict("io_error", defer="no" if number is not None else "context")


@rule("urllib.error.URLError")
def url_error(error: BaseException) -> Verdict:
    """A wrapper: its reason is the error, or a text."""
    reason = read(error, "reason")
    if isinstance(reason, TimeoutError):
        return Verdict("service_timeout")
    return certificate(error) or Verdict("service_unavailable")


@rule("ssl.SSLError")
def tls(error: BaseException) -> Verdict:
    """A certificate does not get better by trying again; a broken connection may."""
    return certificate(error) or Verdict("service_unavailable")


def certificate(error: BaseException) -> Verdict | None:
    """Say that a certificate is not trusted, when that is what the text says."""
    if "CERTIFICATE_VERIFY_FAILED" not in text_of(error) and read(error, "verify_code") is None:
        return None
    return Verdict(
        "service_unavailable",
        retryable=False,
        hint="Check the name, the clock and the certificate authorities of this machine: the certificate was refused.",
    )
