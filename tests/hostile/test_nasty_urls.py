"""Addresses that strangers send to ``/batches``: read as browsers read them, or refused; private ones never asked."""

import asyncio
import json
from itertools import product
from typing import Any

import pytest

from bulletproof.errors import InputValidationError
from bulletproof.fetch import host_of, normalize_url

# Ways to write 127.0.0.1 and what else is on this machine or in its network (WHATWG URL, section 3.5).
LOCAL = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7F.1", "0177.0.0.1", "017700000001", "0x7f.0.0.0x1",
    "127.0.0.1.", "127.000.000.001", "１２７.０.０.１", "127。0。0。1", "①②⑦.0.0.1", "[::1]",
    "[0:0:0:0:0:0:0:1]", "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "0", "0.0.0.0", "0x0", "localhost",
    "LOCALHOST", "localhost.", "169.254.169.254", "2852039166", "0xa9fea9fe", "[fe80::1]", "[fc00::1]", "[fec0::1]",
    "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "192.0.0.8", "224.0.0.1", "255.255.255.255", "[ff02::1]",
    "[::ffff:10.0.0.1]", "%31%32%37.0.0.1",
]  # fmt: skip
NEVER = [
    "", " ", "x", "example.com", "/path", "//example.com", "http:", "http:/", "http://", "http:///", "http:example.com",
    "http://?", "http://#", "http://:80", "http://.", "http://..", "http://a..b", "http://-a.example",
    "http://a-.example",
    "http://a b.example", "http://a\x00.example", "http://a\tb.example", "http://exa\nmple.com", "http://[", "http://]",
    "http://[]", "http://[::1", "http://::1]", "http://[::1]x", "http://[fe80::1%25eth0]", "http://[fe80::1%eth0]",
    "http://[1:2:3]", "http://[::g]", "http://[127.0.0.1]", "http://256.1.1.1", "http://1.2.3.4.5",
    "http://0x100000000",
    "http://09.1.1.1", "http://4294967296", "http://a:b", "http://a:-1",
    "http://a:65536",
    "http://a:0", "http://a:8 0", "http://a:８０", "http://a:80:80", "http://user@a", "http://user:pw@a", "http://@a",
    "http://a@b@c", "http://a%40b@c", "http://xn--", "http://xn--a", "http://xn--zz-.example",
    "http://\ud800",
    "http://" + "a" * 64 + ".example", "http://" + "a." * 130 + "com", "http://a/" + "b" * 8000, "http://a,b",
    "http://a;b",
    "http://a'b", 'http://a"b', "http://a<b>", "http://a{b}", "http://a|b", "http://a^b", "http://a`b", "http://a$b",
    "http://a!b",
    "http://a*b", "http://*.example", "http://a%00b", "http://a%zz", "http://%", "http://\u202ea.example\u200e/\x01",
    "ftp://a", "file:///etc/passwd", "gopher://a:70/_x", "javascript:alert(1)", "data:text/html,x", "dict://a",
    "ldap://a",
    "jar:http://a!/", "blob:http://a/b", "view-source:http://a", "ws://a", "about:blank", "mailto:a@b", "urn:a",
    "HTTPS//a",
    "ht tp://a", "http//a", "http;//a", "1http://a", "http+unix://a", "feed:http://a", "\\\\server\\share", "C:\\a",
]  # fmt: skip
SAME = [
    ("http://EXAMPLE.com", "http://example.com/"), ("HTTP://example.com:80/", "http://example.com/"),
    ("https://example.com:443", "https://example.com/"), ("http://example.com:0080", "http://example.com/"),
    ("http://example.com.", "http://example.com/"), ("http://example.com:", "http://example.com/"),
    ("  http://example.com/ ", "http://example.com/"), ("http:\\\\example.com\\a", "http://example.com/a"),
    ("http://example.com#f", "http://example.com/"), ("http://example.com/#", "http://example.com/"),
    ("http://example.com?", "http://example.com/"), ("http://example.com?a", "http://example.com/?a"),
    ("http://example.com/a/../b/./c", "http://example.com/b/c"), ("http://example.com/../../a", "http://example.com/a"),
    ("http://example.com/%2e%2E/a", "http://example.com/a"), ("http://example.com/%7Ea%2fb",
    "http://example.com/~a%2Fb"),
    ("http://example.com/%", "http://example.com/%25"), ("http://example.com/%zz", "http://example.com/%25zz"),
    ("http://example.com/a b", "http://example.com/a%20b"), ("http://example.com/ä?ö=😀#ü",
    "http://example.com/%C3%A4?%C3%B6=%F0%9F%98%80"), ("http://example.com/\"<>", "http://example.com/%22%3C%3E"),
    ("http://bücher.example", "http://xn--bcher-kva.example/"), ("http://BÜCHER.example",
    "http://xn--bcher-kva.example/"),
    ("http://xn--BCHER-kva.example", "http://xn--bcher-kva.example/"), ("http://faß.example",
    "http://xn--fa-hia.example/"),
    ("http://xn--N3H.example", "http://xn--n3h.example/"), ("http://a\\@b", "http://a/@b"),
    ("http://1.2.3.", "http://1.2.0.3/"), ("http://1.1.1.0x", "http://1.1.1.0/"), ("http://例え.テスト",
    "http://xn--r8jz45g.xn--zckzah/"),
    ("http://ｅｘａｍｐｌｅ.com", "http://example.com/"), ("http://example。com", "http://example.com/"),
    ("http://[2001:DB8:0:0::1]:8080/", "http://[2001:db8::1]:8080/"), ("http://1.2.3.4:81", "http://1.2.3.4:81/"),
    ("http://0x1020304", "http://1.2.3.4/"), ("http://1.2.772", "http://1.2.3.4/"), ("http://a_b.example",
    "http://a_b.example/"),
]  # fmt: skip


def test_each_spelling_of_an_address_becomes_the_one() -> None:
    for given, spelt in SAME:
        assert normalize_url(given) == spelt, given
        assert normalize_url(spelt) == spelt
    for given in NEVER:
        with pytest.raises(InputValidationError) as caught:
            normalize_url(given)
        assert caught.value.code in ("invalid_input", "blocked_url"), given
        str(caught.value).encode()
    for host, scheme, port, path in product(LOCAL, ("http", "HTTPS"), ("", ":8080"), ("", "/a?b#c")):
        url = f"{scheme}://{host}{port}{path}"
        try:
            spelt = normalize_url(url)
        except InputValidationError:
            continue
        assert normalize_url(spelt) == spelt, url
        assert host_of(spelt) == host_of(url), url
        assert spelt.isascii(), url


async def test_batches_give_each_nasty_url_its_outcome_and_ask_no_private_host(sender: Any) -> None:
    urls = [url for url in NEVER if "\ud800" not in url] + [f"http://{host}/" for host in LOCAL]
    urls += [f"https://{host}:9/x" for host in LOCAL]
    status, report = await sender.send("POST", "/batches", json={"urls": urls, "max_retries": 0})
    assert status == 202, report
    place = f"/batches/{report['batch_id']}"
    async with asyncio.timeout(60):
        while report["status"] != "complete":
            await asyncio.sleep(0.1)
            _, report = await sender.send("GET", place)
    assert (report["success"], report["failed"]) == (0, report["total"])
    items: list[dict[str, Any]] = []
    after = f"{place}/items?limit=1000"
    while after:
        _, page = await sender.send("GET", after)
        items, after = items + page["items"], page["next"]
    assert len(items) == report["total"] > 120  # some lead to the same page
    for item in items:
        assert item["code"] in ("invalid_input", "blocked_url"), item
        assert item["hint"], item


async def test_bodies_of_batches_are_read_strictly(sender: Any) -> None:
    good = "http://10.0.0.1/"
    for body, status in (
        (json.dumps({"urls": [good]}), 202), ('{"urls":["http:\\/\\/10.0.0.1\\/"]}', 202),
        ('\ufeff{"urls":["http://10.0.0.1/"]}', 202),
        ("", 400), ("{", 400), ("[]", 422), ("null", 422), ('{"urls":[]}', 422), ('{"urls":null}', 422),
        ('{"urls":"http://10.0.0.1/"}', 422),
        ('{"urls":[null]}', 422), ('{"urls":[["http://a"]]}', 422), ('{"urls":{"0":"http://a"}}', 422),
        ('{"url":["a"]}', 422),
        ('{"urls":["a"],"urls":["b"]}', 400), ('{"urls":["\\ud800"]}', 400), ('{"urls":["a",]}', 400),
        ("{'urls':['a']}", 400),
        ('{"urls":["a"],"priority":0}', 422), ('{"urls":["a"],"priority":1.5}', 422),
        ('{"urls":["a"],"priority":"1"}', 422),
        ('{"urls":["a"],"priority":true}', 422), ('{"urls":["a"],"priority":1e400}', 422),
        ('{"urls":["a"],"max_retries":-1}', 422),
        ('{"urls":["a"],"priority":%s}' % ("9" * 400), 422), ('{"urls":["a"],"priority":NaN}', 422),
        ("[" * 100_000, 400),
        ('{"urls":' + "[" * 1000 + "]" * 1000 + "}", 422),
    ):  # fmt: skip
        headers = {"Content-Type": "application/json"}
        got, answer = await sender.send("POST", "/batches", content=body.encode(), headers=headers)
        assert got == status, (body[:100], answer)
    for kind, content, status in (
        ("text/plain", b"# none\n\n", 422), ("text/plain", good.encode() + b"\r\n# x\r\n", 202), ("text/plain",
        b"\xff\xfe", 422),
        ("text/plain", b"\0" * 100, 422), ("application/xml", b"<a/>", 415), ("", b"x", 415), ("text/csv", b"a", 415),
        ("multipart/form-data; boundary=x", b"--x--", 422), ("multipart/form-data", b"", 400),
        ("application/json; charset=utf-16", '{"urls":["a"]}'.encode("utf-16"), 400),
    ):  # fmt: skip
        got, answer = await sender.send("POST", "/batches", content=content, headers={"Content-Type": kind})
        assert got == status, (kind, content[:40], answer)
    for key in ("x" * 201, "\x7f", " lead", "\xe9"):
        headers = {"Idempotency-Key": key.encode("latin-1")}
        got, answer = await sender.send("POST", "/batches", json={"urls": [good]}, headers=headers)
        assert (got, answer["code"]) == (400, "invalid_request"), (key, answer)
    for path in ("../../etc/passwd", "%2e%2e", "a" * 5000, "%00", "' OR 1=1 --", "é", "%ff", "{}", "a/b/c"):
        for place in ("batches", "results", "models"):
            got, answer = await sender.send("GET", f"/{place}/{path}")
            assert got in (404, 422), (path, answer)
