"""Addresses have one spelling each, or a reason why not."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from bulletproof.errors import InputValidationError
from bulletproof.fetch import host_of, normalize_url


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        ("  https://example.com/a \n", "https://example.com/a"),
        ("http://example.com:80/", "http://example.com/"),
        ("https://example.com:443/", "https://example.com/"),
        ("http://example.com:/x", "http://example.com/x"),
        ("https://example.com:80/", "https://example.com:80/"),
        ("http://example.com./", "http://example.com/"),
        ("http://example.com/a/./b/../c", "http://example.com/a/c"),
        ("http://example.com/../../x", "http://example.com/x"),
        ("http://example.com/a/..", "http://example.com/"),
        ("http://example.com/a/%2e%2E/b", "http://example.com/b"),
        ("http://example.com/%7euser/%c3%a4%2f", "http://example.com/~user/%C3%A4%2F"),
        ("http://example.com/ä b", "http://example.com/%C3%A4%20b"),
        ("http://example.com/100%", "http://example.com/100%25"),
        ("http://example.com/%%41", "http://example.com/%25A"),
        ("http://example.com?q=1#part", "http://example.com/?q=1"),
        ("http://example.com/a?b=c/../d?e", "http://example.com/a?b=c/../d?e"),
        ("http://example.com/a?", "http://example.com/a"),
        ("http:\\\\example.com\\a", "http://example.com/a"),
        ("http://example.com\\@other.example/", "http://example.com/@other.example/"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://ＥＸＡＭＰＬＥ.com/", "http://example.com/"),
        ("http://XN--Bcher-KVA.example/", "http://xn--bcher-kva.example/"),
        ("http://xn--i-7iq.ws/", "http://xn--i-7iq.ws/"),
        ("http://my_host.example/", "http://my_host.example/"),
        ("http://[2001:DB8:0::1]:8080/", "http://[2001:db8::1]:8080/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f000001/", "http://127.0.0.1/"),
        ("http://0177.0.0.1/", "http://127.0.0.1/"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://0x7F.0x0.0x0.0x1/", "http://127.0.0.1/"),
        ("http://１２７.0.0.1/", "http://127.0.0.1/"),
        ("http://①②⑦.0.0.1/", "http://127.0.0.1/"),
        ("http://127。0。0。1/", "http://127.0.0.1/"),
    ],
)
def test_equal_addresses_are_equal_texts(written: str, meant: str) -> None:
    assert normalize_url(written) == meant
    assert normalize_url(meant) == meant


@pytest.mark.parametrize(
    ("written", "code", "reason"),
    [
        ("", "invalid_input", "empty"),
        ("   ", "invalid_input", "empty"),
        ("example.com/page", "invalid_input", "no scheme"),
        ("//example.com/page", "invalid_input", "no scheme"),
        ("localhost:8000/page", "invalid_input", "no scheme"),
        ("not a url", "invalid_input", "no scheme"),
        ("http://", "invalid_input", "no host"),
        ("http:///page", "invalid_input", "no host"),
        ("http:page", "invalid_input", "no host"),
        ("http://exa mple.com/", "invalid_input", "host"),
        ("http://%6c%6fcalhost/", "invalid_input", "not a host name"),
        ("http://-a.example/", "invalid_input", "not a host name"),
        ("http://xn--a.example/", "invalid_input", "not a host name"),
        ("http://xn--.example/", "invalid_input", "not a host name"),
        ("http://℀.example/", "invalid_input", "not a host name"),
        ("http://a..example/", "invalid_input", "not a host name"),
        (f"http://{'a' * 64}.example/", "invalid_input", "not a host name"),
        (f"http://{'a.' * 127}example/", "invalid_input", "not a host name"),
        ("http://\u2488com/", "invalid_input", "not a host name"),
        ("http://256.1.1.1/", "invalid_input", "not an IPv4 address"),
        ("http://1.2.3.4.5/", "invalid_input", "not an IPv4 address"),
        ("http://0x100000000/", "invalid_input", "not an IPv4 address"),
        ("http://08.1.1.1/", "invalid_input", "not an IPv4 address"),
        ("http://[::1/", "invalid_input", "host"),
        ("http://[::g]/", "invalid_input", "not an IPv6 address"),
        ("http://[fe80::1%25eth0]/", "invalid_input", "zone"),
        ("http://example.com:99999/", "invalid_input", "port"),
        ("http://example.com:0/", "invalid_input", "port"),
        ("http://example.com:1x/", "invalid_input", "port"),
        ("http://example.com/\x00", "invalid_input", "control characters"),
        ("http://example.com/\r\nHost: evil", "invalid_input", "control characters"),
        ("http://example.com/\ud800", "invalid_input", "surrogate"),
        ("http://example.com/" + "a" * 8000, "invalid_input", "more than 8,000"),
        ("ftp://example.com/", "blocked_url", "'ftp'"),
        ("file:///etc/passwd", "blocked_url", "'file'"),
        ("javascript:alert(1)", "blocked_url", "'javascript'"),
        ("gopher://localhost:6379/_FLUSHALL", "blocked_url", "'gopher'"),
        ("https://bob:hunter2@example.com/", "blocked_url", "user name or password"),
        ("https://example.com@evil.example/", "blocked_url", "user name or password"),
    ],
)
def test_a_refusal_says_why_and_keeps_passwords_to_itself(written: str, code: str, reason: str) -> None:
    with pytest.raises(InputValidationError) as caught:
        normalize_url(written)
    assert caught.value.code == code
    assert reason in str(caught.value)
    assert not caught.value.retryable
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [None, 5, b"http://example.com/", ["http://example.com/"]])
def test_what_is_no_text_is_refused_like_any_wrong_address(value: object) -> None:
    with pytest.raises(InputValidationError, match="is text"):
        normalize_url(value)  # type: ignore[arg-type]


_WORDS = "http:// https:// HTTP: / // . .. %2e %41 % %zz : :80 :99999 @ ? # [ ] [::1] 127.1 0x7f １ 。 ä \\ xn-- ftp://"
_PIECES = st.one_of(st.text(max_size=8), st.sampled_from(_WORDS.split(" ")))
_MADE = st.lists(_PIECES).map("".join)


@given(st.one_of(st.text(), _MADE, _MADE.map("http://a/".__add__), _MADE.map("http://a.".__add__)))
@example("http://a/%%2e.")
@example("http://\u00ad/")
@example("http://xn--a/")
@example("HTTP://0.XN--0")
@example("http://０.xn--0/")
@example("http://xn--\u00e4/")
@example("http://a/?\udcff")
def test_any_text_is_normalised_once_and_for_all_or_refused(text: str) -> None:
    try:
        found = normalize_url(text)
    except InputValidationError:
        return
    assert normalize_url(found) == found
    assert found.isascii()
    assert found.startswith(("http://", "https://"))
    assert URL(found, encoded=True).host  # what sends the request reads the same host
    assert "@" not in found.split("/")[2]
    assert host_of(found) == found.split("/")[2]
