"""What must not be reached is not reached: judged by the address of the socket, for each hop anew."""

import socket
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import ConfigurationError, InputValidationError, ServiceUnavailableError, classify
from bulletproof.fetch import Fetcher, Page
from bulletproof.fetch.address import parse
from bulletproof.fetch.guard import Guard, why_refused
from support.web import Answer, Site, page

REFUSED = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.255.0.1 169.254.0.1
    169.254.169.254 169.254.170.2 168.63.129.16 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.192 192.0.2.1
    192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::a00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a00:1
    64:ff9b::808:808 64:ff9b:1::1 64:ff9b:1:ffff::a9fe:a9fe 100::1 2001::1 2001:0:7f00:1:: 2001:db8::1 2001:10::1
    2002:7f00:1:: 2002:a00:1::1 2002:808:808:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fd12:3456::1 fe80::1 fe80::1%eth0
    febf::1 fec0::1 feff::1 ff02::1 ff0e::1 4000::1 1::1
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 93.184.215.14 172.32.0.1 192.0.1.1 100.128.0.1 ::ffff:8.8.8.8 2606:4700::1111 2a00:1450::1
"""


class Answers:
    """A resolver that gives the next of its answers each time, the last one for ever."""

    def __init__(self, *answers: list[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[dict[str, Any]]:
        self.asked += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, OSError):
            raise found
        return [
            {
                "hostname": host,
                "host": ip,
                "port": port,
                "family": socket.AF_INET6 if ":" in ip else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for ip in found
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("address", REFUSED.split())
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert why_refused(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_is_let_through(address: str) -> None:
    assert why_refused(address) is None


@given(st.ip_addresses())
def test_nothing_passes_that_the_standard_library_holds_for_special(address: Any) -> None:
    if why_refused(address) is None:
        plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
        assert plain.is_global
        assert not plain.is_multicast


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_written_as_ipv6_gains_nothing(address: Any) -> None:
    assert why_refused(IPv6Address(f"::ffff:{address}")) == why_refused(address)
    for form in ("::{}", "64:ff9b::{}", "64:ff9b:1::{}"):
        assert why_refused(form.format(address))
    number = int(address)
    assert why_refused(ip_address(0x2002 << 112 | number << 80))
    assert why_refused(ip_address(0x20010000 << 96 | (number ^ 0xFFFFFFFF)))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.01/", "http://127.1/",
        "http://[::1]/", "http://[::ffff:7f00:1]/", "http://[64:ff9b::a9fe:a9fe]/", "http://169.254.169.254/latest/",
        "http://localhost/", "http://0/", "http://１２７.0.0.1/",
    ],
)  # fmt: skip
async def test_all_ways_to_write_a_private_address_are_refused(new_fetcher: Callable[..., Fetcher], url: str) -> None:
    fetcher = new_fetcher(allow_hosts=())
    with pytest.raises(InputValidationError, match="must not be fetched") as caught:
        await fetcher.get(url)
    assert caught.value.code == "blocked_url"
    assert not classify(caught.value).retryable
    assert caught.value.where["url"]


async def test_the_refusal_names_host_address_and_reason(new_fetcher: Callable[..., Fetcher]) -> None:
    fetcher = new_fetcher(allow_hosts=(), resolver=Answers(["10.1.2.3", "fd00::7"]))
    with pytest.raises(InputValidationError) as caught:
        await fetcher.get("http://intranet.example/pay")
    said = str(caught.value)
    assert "intranet.example" in said
    assert "10.1.2.3 is a private network" in said
    assert "fd00::7 is a private network" in said
    assert "http://intranet.example/pay" in said


async def test_a_name_that_changes_its_address_gains_nothing(new_web: Any, new_fetcher: Callable[..., Fetcher]) -> None:
    """The name leads to an allowed address first, then to another one of this machine."""
    honest = new_web(host="127.0.0.2")
    victim = new_web(host="127.0.0.1", port=honest.port)
    honest.put("/", lambda _: Answer(page(1), headers={"Connection": "close"}))
    resolver = Answers(["127.0.0.2"], ["127.0.0.1"])
    fetcher = new_fetcher(allow_hosts=["127.0.0.2/32"], respect_robots=False, resolver=resolver)
    url = f"http://rebind.example:{honest.port}/"
    assert (await fetcher.get(url)).status == 200
    honest.stop()
    with pytest.raises(InputValidationError, match=r"127\.0\.0\.1 is this machine"):
        await fetcher.get(url)
    assert resolver.asked >= 2
    assert not victim.hits


async def test_a_private_address_among_public_ones_is_never_tried(
    web: Site, new_fetcher: Callable[..., Fetcher]
) -> None:
    """The first address is allowed and dead: the other one must not take its place."""
    resolver = Answers(["127.0.0.9", "127.0.0.1"])
    fetcher = new_fetcher(allow_hosts=["127.0.0.9/32"], respect_robots=False, resolver=resolver)
    with pytest.raises(ServiceUnavailableError) as caught:
        await fetcher.get(f"http://mixed.example:{web.port}/")
    assert caught.value.retryable
    assert not web.hits


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://10.0.0.1/", 301),
        ("http://[::1]/", 302),
        ("http://169.254.169.254/latest/meta-data/", 303),
        ("http://167772161/", 307),
        ("http://localhost/x", 308),
    ],
)
async def test_a_redirect_to_a_private_address_is_refused(
    web: Site, fetcher: Fetcher, target: str, status: int
) -> None:
    with pytest.raises(InputValidationError) as caught:
        await fetcher.get(web.url(f"/to?url={target}&status={status}"))
    assert caught.value.code == "blocked_url"
    assert not caught.value.retryable


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://127.0.0.1:6379/x", "ftp://example.com/", "data:,x"])
async def test_a_redirect_to_another_scheme_is_refused(web: Site, fetcher: Fetcher, target: str) -> None:
    with pytest.raises(InputValidationError, match="only http and https"):
        await fetcher.get(web.url(f"/to?url={target}"))


async def test_a_redirect_with_a_password_is_refused(web: Site, fetcher: Fetcher) -> None:
    with pytest.raises(InputValidationError, match="user name or password") as caught:
        await fetcher.get(web.url(f"/to?url=http://bob:hunter2@127.0.0.1:{web.port}/page/1"))
    assert "hunter2" not in str(caught.value)
    assert web.hits["/page/1"] == 0


async def test_a_redirect_from_https_to_http_is_refused(new_web: Any, web: Site, new_fetcher: Any) -> None:
    secure = new_web(tls="good")
    fetcher = new_fetcher(tls=secure.client_context())
    with pytest.raises(InputValidationError, match="not secure") as caught:
        await fetcher.get(secure.url(f"/to?url={web.url('/page/1')}"))
    assert caught.value.code == "blocked_url"
    assert not web.hits
    assert (await fetcher.get(web.url(f"/to?url={secure.url('/page/1')}"))).body == page(1)


async def test_ports_are_limited_unless_the_host_is_allowed(web: Site, new_fetcher: Callable[..., Fetcher]) -> None:
    with pytest.raises(InputValidationError, match=r"port 22 .*\[80, 443\]"):
        await new_fetcher(allow_hosts=()).get("http://example.com:22/")
    with pytest.raises(InputValidationError, match="must not be fetched"):
        await new_fetcher(allow_hosts=(), allow_ports=[web.port]).get(web.url())
    with pytest.raises(InputValidationError, match=f"on port {web.port}"):
        resolver = Answers(["1.1.1.1"])
        await new_fetcher(allow_hosts=["127.0.0.0/8"], resolver=resolver).get(f"http://public.example:{web.port}/")


@pytest.mark.parametrize(
    ("entry", "yes", "no"),
    [
        ("intranet", "http://intranet:8080/", "http://intranet.example/"),
        ("Intranet:8080", "http://INTRANET:8080/", "http://intranet:8081/"),
        ("intranet:80", "http://intranet/", "http://intranet:8080/"),
        ("*.corp.example", "http://a.b.corp.example:99/", "http://corp.example/"),
        ("*.corp.example:99", "http://a.corp.example:99/", "http://a.corp.example/"),
        ("10.0.0.1", "http://10.0.0.1:5/", "http://10.0.0.2/"),
        ("10.0.0.0/8", "http://10.9.9.9:5/", "http://11.0.0.1/"),
        ("::1", "http://[::1]:5/", "http://[::2]/"),
        ("[::1]:8080", "http://[::1]:8080/", "http://[::1]/"),
        ("fd00::/8", "http://[fd12::1]/", "http://[fe80::1]/"),
        ("bücher.example", "http://xn--bcher-kva.example/", "http://bucher.example/"),
    ],
)
def test_what_an_entry_of_the_allowed_hosts_means(entry: str, yes: str, no: str) -> None:
    guard = Guard([entry])
    assert guard.exempt(parse(yes))
    assert not guard.exempt(parse(no))


@pytest.mark.parametrize("entry", ["", "http://host/", "a b", "*", "*.", "10.0.0.0/99", "host:port", "host:0", "a*b"])
def test_an_entry_that_cannot_be_read_is_named(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="allow_hosts"):
        Guard([entry])


def test_a_port_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match="70000"):
        Guard(allow_ports=[80, 70000])


async def test_no_proxy_of_the_environment_is_used(
    web: Site, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    found: Page = await fetcher.get(web.url("/page/1"))
    assert found.body == page(1)
