"""How much a page may cost."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits of one download.

    Args:
        max_bytes: Bytes as sent.
        max_decompressed_bytes: Bytes once unpacked.
        max_compression_ratio: Unpacked bytes for each byte sent; looked at from the first MiB unpacked on.
        max_redirects: Redirects followed.
        connect_timeout: Seconds for looking up the name, connecting and TLS.
        read_timeout: Seconds without a single byte.
        total_timeout: Seconds for everything, redirects and robots.txt included.
        min_rate: Bytes per second on average over each ``rate_window``, below which a body is given up.
        rate_window: Seconds.
        max_header_bytes: Bytes of one header.

    Raises:
        ValueError: A limit is not positive (``max_redirects`` and ``min_rate`` may be 0).

    Example:
        >>> FetchLimits(max_bytes=1000).max_bytes
        1000
    """

    max_bytes: int = 10 * MIB
    max_decompressed_bytes: int = 20 * MIB
    max_compression_ratio: float = 200.0
    max_redirects: int = 10
    connect_timeout: float = 10.0
    read_timeout: float = 15.0
    total_timeout: float = 60.0
    min_rate: float = 100.0
    rate_window: float = 10.0
    max_header_bytes: int = 16 * 1024

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (value > 0 or (value == 0 and name in ("max_redirects", "min_rate"))):
                raise ValueError(f"{name} must be positive, got {value!r}")
