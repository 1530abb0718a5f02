"""The rule for errors of the operating system."""

import errno
import re

from bulletproof.errors.reading import raised_by, read, text_of
from bulletproof.errors.registry import Verdict, rule
from bulletproof.errors.rules.wording import worded

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
