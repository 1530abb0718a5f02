"""Rules for Python itself and its standard library."""

import errno
import re

from bulletproof.errors.reading import raised_by, read, text_of
from bulletproof.errors.registry import Verdict, family, register, rule
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
    RecursionError ReferenceError StopAsyncIteration StopIteration SyntaxError SystemError TypeError Warning""",
    wording=worded,
)
register(
    "internal_error",
    """queue.Empty _queue.Empty asyncio.InvalidStateError concurrent.futures.InvalidStateError asyncio.QueueEmpty
    concurrent.futures.Error
    concurrent.futures.BrokenExecutor multiprocessing.ProcessError struct.error copy.Error subprocess.SubprocessError
    threading.BrokenBarrierError asyncio.BrokenBarrierError""",
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
    tarfile.TarError shutil.ReadError""",
)
register("model_load_failed", "pickle.PickleError _pickle.PickleError")
register(
    "invalid_input",
    """binascii.Error xml.etree.ElementTree.ParseError xml.parsers.expat.ExpatError pyexpat.ExpatError
    xml.sax.SAXException html.parser.HTMLParseError tomllib.TOMLDecodeError plistlib.InvalidFileException
    email.errors.MessageError
    email.errors.MessageDefect xml.dom.DOMException mailbox.Error binascii.Incomplete argparse.ArgumentError
    argparse.ArgumentTypeError getopt.GetoptError optparse.OptParseError wave.Error
    ipaddress.AddressValueError ipaddress.NetmaskValueError""",
)
register("misconfigured", "configparser.Error zoneinfo.ZoneInfoNotFoundError netrc.NetrcParseError")

# Time and capacity.
register("deadline_exceeded", "multiprocessing.TimeoutError subprocess.TimeoutExpired")
register("overloaded", "queue.Full asyncio.QueueFull")

# The network.
register("service_timeout", "TimeoutError", network=True)
register("service_unavailable", "ConnectionError socket.gaierror socket.herror", network=True)
family(
    "http.client",
    {
        "service_unavailable": "HTTPException RemoteDisconnected",
        "bad_response": "BadStatusLine IncompleteRead LineTooLong UnknownProtocol",
        "internal_error": "ImproperConnectionState UnimplementedFileMode",
        "invalid_input": "InvalidURL",
    },
)
register("bad_response", "asyncio.IncompleteReadError asyncio.LimitOverrunError xmlrpc.client.Error")
register("service_unavailable", "smtplib.SMTPException ftplib.Error imaplib.error poplib.error_proto nntplib.NNTPError")

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
    """InterruptedError ProcessLookupError ChildProcessError shutil.Error shutil.SpecialFileError shutil.ExecError
    io.UnsupportedOperation dbm.error""",
)


@rule("OSError")
def os_error(error: BaseException) -> Verdict | None:
    """By the number that the operating system gave; ``[Errno 28]`` in the text serves as well."""
    number = read(error, "errno")
    text = text_of(error)
    if not isinstance(number, int):
        match = re.match(r"\[Errno (\d+)\]", text)
        number = int(match[1]) if match else None
    if number is None:
        if raised_by(error) == "image":
            return Verdict("corrupted_image")
        return worded(text[:4000]) or Verdict("io_error", defer="context")
    code = _CODE_OF_ERRNO.get(number, "io_error")
    return Verdict("database_unavailable" if code.startswith("service_") and raised_by(error) == "database" else code)
