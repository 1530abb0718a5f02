"""Whether a port can be listened on."""

import errno
import os
import socket

from bulletproof.errors import ConfigurationError


def check_free(host: str, port: int, other: str) -> None:
    """Refuse an address that cannot be listened on.

    Args:
        host: The address.
        port: The port.
        other: How to choose another port, for the hint.

    Raises:
        ConfigurationError: It is taken or not allowed; says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                message, hint = f"port {port} is taken", f"Choose another: {other}"
            elif error.errno in (errno.EACCES, errno.EPERM):
                message, hint = f"port {port} needs more rights", "Choose a port from 1024 up."
            else:
                message, hint = f"cannot listen on {host}: {error.strerror or error}", "Check --host."
            raise ConfigurationError(message, hint=hint) from error


def is_free(host: str, port: int) -> bool:
    """Whether an address can be listened on."""
    try:
        check_free(host, port, "")
    except ConfigurationError:
        return False
    return True
