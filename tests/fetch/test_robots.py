"""robots.txt as RFC 9309 has it."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import InputValidationError, NotFoundError, ServiceUnavailableError
from bulletproof.fetch import Fetcher, TooSoonError
from bulletproof.fetch.robots import parse_robots
from support.web import Answer, Site

# RFC 9309 §5.1
RFC_EXAMPLE = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


@pytest.mark.parametrize(
    ("agent", "target", "allowed"),
    [
        ("otherbot", "/", True),
        ("otherbot", "/a.gif", False),
        ("otherbot", "/a.gif?x", True),
        ("otherbot", "/example/a", False),
        ("otherbot", "/publications/a.gif", True),
        ("foobot", "/", False),
        ("FooBot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("foobot", "/example/other.gif", False),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("bazbot", "/a.gif", True),
        ("quxbot", "/example/a.gif", True),
    ],
)
def test_the_example_of_the_rfc(agent: str, target: str, allowed: bool) -> None:
    assert parse_robots(RFC_EXAMPLE, agent).allows(target) is allowed


@pytest.mark.parametrize(
    ("text", "target", "allowed"),
    [
        ("", "/x", True),
        ("Disallow: /", "/x", True),  # belongs to no group
        ("User-agent: *\nDisallow:", "/x", True),
        ("User-agent: *\nDisallow: /", "/robots.txt", True),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", True),  # the same length: allowing wins
        ("User-agent: *\nAllow: /a\nDisallow: /a/b", "/a/b/c", False),  # the longest wins
        ("User-agent: *\r\nDisallow: /a # comment\r\n", "/a", False),
        ("\ufeffUSER-AGENT : *\rdisallow : /a", "/a", False),
        ("User-agent: *\nSitemap: http://x/\nDisallow: /a", "/a", False),
        ("User-agent: *\n\n\nDisallow: /a", "/a", False),
        ("User-agent: bot\nUser-agent: *\nCrawl-delay: 5\nDisallow: /a", "/a", False),
        ("User-agent: bot/2.0 (like others)\nDisallow: /a", "/a", False),
        ("User-agent: botanic\nDisallow: /a", "/a", True),
        ("User-agent: bot\nDisallow: /a\n\nUser-agent: x\nDisallow: /\n\nUser-agent: bot\nDisallow: /b", "/b", False),
        ("User-agent: *\nDisallow: /", "/x", False),
        ("User-agent: *\nDisallow: /ä", "/%C3%A4/b", False),
        ("User-agent: *\nDisallow: /%7ebob", "/~bob", False),
        ("User-agent: *\nDisallow: /a%2fb", "/a/b", True),
        ("User-agent: *\nDisallow: /*?", "/a?b", False),
        ("User-agent: *\nDisallow: /a$", "/ab", True),
        ("<html><body>not found</body></html>", "/x", True),
    ],
)
def test_lines_as_they_occur(text: str, target: str, allowed: bool) -> None:
    assert parse_robots(text, "bot").allows(target) is allowed


def test_the_delay_is_that_of_the_group() -> None:
    text = "User-agent: *\nCrawl-delay: 9\n\nUser-agent: bot\nCrawl-delay: 1.5\nDisallow: /x"
    assert parse_robots(text, "bot").delay == 1.5
    assert parse_robots(text, "other").delay == 9
    assert parse_robots("User-agent: *\nCrawl-delay: soon", "bot").delay is None


@given(st.text(alphabet="/ab*$", max_size=8), st.text(alphabet="/ab$", max_size=10).map("/".__add__))
def test_patterns_match_as_the_regular_expression_they_stand_for(pattern: str, target: str) -> None:
    body, end = (pattern[:-1], "$") if pattern.endswith("$") else (pattern, "")
    wanted = re.match(".*".join(map(re.escape, body.split("*"))) + end.replace("$", r"\Z"), target) is not None
    rules = parse_robots(f"User-agent: *\nDisallow: {pattern}", "bot")
    assert rules.allows(target) is not (wanted and pattern != "")


@given(st.text(), st.text(max_size=20).map("/".__add__))
def test_any_text_is_read(text: str, target: str) -> None:
    assert parse_robots(text, "bot").allows(target) in (True, False)
    assert parse_robots("User-agent: *\n" + text, "bot").allows("/robots.txt")


# Against a real site, that is reached by its name: it is not on the list of hosts, its network is.


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def polite(new_fetcher: Callable[..., Fetcher], clock: Clock) -> Fetcher:
    return new_fetcher(allow_hosts=["127.0.0.0/8", "::1/128"], clock=clock, user_agent="test-bot/3 (+http://x/)")


def at(site: Site, path: str) -> str:
    return site.url(path, host="localhost")


async def test_a_page_that_is_forbidden_is_not_asked_for(web: Site, polite: Fetcher) -> None:
    web.robots("User-agent: test-bot\nDisallow: /page/1\nUser-agent: *\nDisallow: /")
    with pytest.raises(InputValidationError, match=r"robots\.txt of localhost:\d+ forbids") as caught:
        await polite.get(at(web, "/page/1"))
    assert caught.value.code == "blocked_url"
    assert not caught.value.retryable
    assert (await polite.get(at(web, "/page/2"))).status == 200
    assert web.hits == {"/robots.txt": 1, "/page/2": 1}


async def test_a_redirect_to_a_forbidden_page_is_not_followed(web: Site, polite: Fetcher) -> None:
    web.robots("User-agent: *\nDisallow: /page/")
    with pytest.raises(InputValidationError, match=r"robots\.txt"):
        await polite.get(at(web, "/to?url=/page/1"))
    assert web.hits["/page/1"] == 0


async def test_it_is_asked_for_once_by_many_and_again_after_a_day(web: Site, polite: Fetcher, clock: Clock) -> None:
    web.robots("User-agent: *\nDisallow: /x")
    await asyncio.gather(*(polite.get(at(web, f"/page/{number}")) for number in range(20)))
    assert web.hits["/robots.txt"] == 1
    clock.now = 24 * 3600.0
    await polite.get(at(web, "/page/1"))
    assert web.hits["/robots.txt"] == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
async def test_where_there_is_none_all_is_allowed(web: Site, polite: Fetcher, status: int) -> None:
    web.robots("User-agent: *\nDisallow: /", status=status)
    assert (await polite.get(at(web, "/page/1"))).status == 200


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_while_it_cannot_be_read_nothing_is_fetched(
    web: Site, polite: Fetcher, clock: Clock, status: int
) -> None:
    web.robots("", status=status, headers={"Retry-After": "90"})
    for _ in range(2):
        with pytest.raises(ServiceUnavailableError, match=r"robots\.txt of localhost:\d+ cannot be read") as caught:
            await polite.get(at(web, "/page/1"))
        assert caught.value.retryable
        assert caught.value.retry_after == 90
        assert caught.value.where["url"] == at(web, "/page/1")
    assert web.hits == {"/robots.txt": 1}
    web.robots("")
    clock.now = 61.0
    assert (await polite.get(at(web, "/page/1"))).status == 200


@pytest.mark.parametrize("path", ["/reset", "/close", "/never", "/garbage"])
async def test_a_broken_one_is_one_that_cannot_be_read(web: Site, polite: Fetcher, path: str) -> None:
    web.put("/robots.txt", lambda _: Answer(b"", 302, None, {"Location": path}))
    with pytest.raises(ServiceUnavailableError, match="cannot be read"):
        await polite.get(at(web, "/page/1"))


@pytest.mark.parametrize("target", ["/loop", "http://10.0.0.1/robots.txt", "ftp://x/", "/spiral"])
async def test_one_that_is_never_reached_is_none(web: Site, polite: Fetcher, target: str) -> None:
    web.put("/robots.txt", lambda _: Answer(b"", 302, None, {"Location": target}))
    assert (await polite.get(at(web, "/page/1"))).status == 200


async def test_a_huge_one_is_read_as_far_as_the_limit(web: Site, polite: Fetcher) -> None:
    web.robots("User-agent: *\nDisallow: /page/1\n" + "# comment\n" * 100_000 + "Disallow: /page/2\n")
    with pytest.raises(InputValidationError):
        await polite.get(at(web, "/page/1"))
    assert (await polite.get(at(web, "/page/2"))).status == 200


async def test_the_delay_of_a_site_can_be_asked_for(web: Site, polite: Fetcher, fetcher: Fetcher) -> None:
    web.robots("User-agent: *\nCrawl-delay: 2.5")
    assert await polite.crawl_delay(at(web, "/page/1")) == 2.5
    assert await polite.crawl_delay(at(web, "/page/2")) == 2.5
    assert web.hits == {"/robots.txt": 1}
    assert await fetcher.crawl_delay(web.url("/page/1")) is None  # on the list


async def test_a_site_is_visited_no_sooner_than_it_asks_for(web: Site, polite: Fetcher, clock: Clock) -> None:
    web.robots("User-agent: *\nCrawl-delay: 2.5\nDisallow: /page/9")
    web.put("/moved", lambda _: Answer(b"", 302, None, {"Location": "/page/3"}))
    await polite.get(at(web, "/page/1"))
    clock.now += 1.0
    with pytest.raises(TooSoonError, match=r"asks for 2\.5 s") as caught:
        await polite.get(at(web, "/page/2"))
    assert (caught.value.retry_after, caught.value.code, caught.value.retryable) == (1.5, "rate_limited", True)
    with pytest.raises(InputValidationError):  # known without a visit
        await polite.get(at(web, "/page/9"))
    clock.now += 1.5
    page = await polite.get(at(web, "/moved"))  # a redirect is a part of the visit
    assert page.final_url == at(web, "/page/3")
    assert web.hits == {"/robots.txt": 1, "/page/1": 1, "/moved": 1, "/page/3": 1}


async def test_no_site_is_waited_for_longer_than_the_cap(web: Site, polite: Fetcher, clock: Clock) -> None:
    web.robots("User-agent: *\nCrawl-delay: 86400")
    await polite.get(at(web, "/page/1"))
    assert await polite.crawl_delay(at(web, "/page/1")) == 30
    clock.now += 30
    await polite.get(at(web, "/page/2"))


async def test_an_allowed_host_needs_none(web: Site, fetcher: Fetcher, new_fetcher: Any) -> None:
    web.robots("User-agent: *\nDisallow: /")
    assert (await fetcher.get(web.url("/page/1"))).status == 200
    rude = new_fetcher(allow_hosts=["127.0.0.0/8", "::1/128"], respect_robots=False)
    assert (await rude.get(at(web, "/page/1"))).status == 200
    assert web.hits == {"/page/1": 2}


async def test_an_error_of_the_site_names_the_page_and_not_its_robots_txt(new_fetcher: Any) -> None:
    with pytest.raises(NotFoundError) as caught:
        await new_fetcher(allow_hosts=()).get("http://nothing.invalid/page")
    assert caught.value.where["url"] == "http://nothing.invalid/page"


async def test_a_cancelled_first_asker_does_not_spoil_it_for_the_others(web: Site, polite: Fetcher) -> None:
    web.put("/robots.txt", lambda asked: Answer(b"", 302, None, {"Location": "/text?delay=0.2"}))
    first = asyncio.create_task(polite.get(at(web, "/page/1")))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(polite.get(at(web, f"/page/{number}"))) for number in (2, 3)]
    await asyncio.sleep(0.01)
    first.cancel()
    assert [(await other).status for other in others] == [200, 200]
    with pytest.raises(asyncio.CancelledError):
        await first


def test_a_file_that_names_thousands_of_crawlers_and_rules_is_read_in_time() -> None:
    others = "".join(
        f"user-agent: other-{letter}{letter * (number % 200)}\n" for number in range(500) for letter in "abcdefghij"
    )
    text = f"{others}user-agent: us\n" + "disallow: /a\n" * 20_000 + f"{others}allow: /\n" + "disallow: /b\n" * 20_000
    begun = time.process_time()
    rules = parse_robots(text, "us")
    assert time.process_time() - begun < 2
    assert (rules.allows("/a"), rules.allows("/b")) == (False, True)
