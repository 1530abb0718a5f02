"""A page as it was fetched."""

from dataclasses import dataclass
from typing import NamedTuple

from bulletproof.errors import UnsupportedFormatError
from bulletproof.fetch.address import shown


class Validators(NamedTuple):
    """What a server said about a version of a page, to ask later whether there is a newer one (RFC 9110 §8.8)."""

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was fetched.

    Args:
        url: The address asked for, normalised.
        final_url: The address that answered, after redirects.
        status: HTTP status: 2xx, or 304.
        media_type: Such as ``text/html``, by header and content.
        charset: Python's name of the encoding; None for PDF.
        body: The content, unpacked.
        etag: The server's ``ETag``.
        last_modified: The server's ``Last-Modified``.
        not_modified: Whether the version known by the ``validators`` is still the newest; then there is no body.
        redirects: Redirects followed.
        seconds: Time it took.
    """

    url: str
    final_url: str
    status: int
    media_type: str
    charset: str | None
    body: bytes
    etag: str | None = None
    last_modified: str | None = None
    not_modified: bool = False
    redirects: int = 0
    seconds: float = 0.0

    @property
    def validators(self) -> Validators:
        """What to pass to ``Fetcher.get`` when the page is fetched again."""
        return Validators(self.etag, self.last_modified)

    def text(self) -> str:
        """Return the content as text; bytes that are none in its charset are replaced.

        Raises:
            UnsupportedFormatError: It is not text but a PDF.
        """
        if self.charset is None:
            raise UnsupportedFormatError(f"{self.media_type} is not text: extract its text", url=shown(self.final_url))
        return self.body.decode(self.charset, "replace").removeprefix("\ufeff")
