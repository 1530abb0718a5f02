"""What somebody sees and does in a browser while all is well."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from bulletproof.jobs import KeptCalls
from bulletproof.store import ResultStore

PANELS = (
    "Health",
    "Errors per minute",
    "Errors by service",
    "Rising",
    "Most frequent errors",
    "Circuit breakers",
    "Recent runs",
    "Kept calls",
    "Process a file",
)
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>{{7*7}}**b**"


def send(address: str, name: str, content: bytes, **fields: str) -> None:
    httpx.post(f"{address}/process", files={"file": (name, content)}, data=fields, timeout=60)


def test_every_panel_is_there_and_says_how_it_is(serve: Any, board: Any) -> None:
    board.open(f"{serve().address}/dashboard/").live()
    for title in PANELS:
        expect(board.panel(title)).to_be_visible()
    board.sees("Health", "Healthy", "store", "analyzer", "local/")
    board.sees("Rising", "Nothing fails more than usual.")
    board.sees("Most frequent errors", "No errors in this time.")
    board.sees("Circuit breakers", "database", "Closed")
    board.sees("Recent runs", "No files yet.")
    board.sees("Kept calls", "No call waits to be run again.")
    expect(board.panel("Errors per minute").locator("canvas")).to_be_visible()


def test_an_upload_shows_its_result_and_then_stands_among_the_runs(serve: Any, board: Any, samples: Path) -> None:
    board.open(f"{serve().address}/dashboard/").live()
    board.upload("reviews.csv", (samples / "reviews.csv").read_bytes())
    board.sees("Process a file", "119 of 123 records analysed", "row 1", "negative", "rejected (empty_text)")
    board.sees("Recent runs", "reviews.csv", "119 analysed, 4 rejected")
    board.sees("Health", "Records analysed", "119")


def test_the_form_hands_on_the_field_that_holds_the_text(serve: Any, board: Any) -> None:
    board.open(f"{serve().address}/dashboard/").live()
    rows = json.dumps([{"a": "first things first", "b": "wonderful, I love it"}]).encode()
    board.upload("two.json", rows, Field_that_holds_the_text="b")
    board.sees("Process a file", "1 of 1 records analysed", "wonderful, I love it")


def test_errors_are_counted_by_service_and_open_with_their_samples(serve: Any, board: Any) -> None:
    address = serve().address
    board.open(f"{address}/dashboard/").live()
    for _ in range(3):
        send(address, "broken.json", b'[{"text": "never ends')
    board.sees("Most frequent errors", "Bad input", "processor", "invalid_json", "3 times")
    board.sees("Errors by service", "processor", "3")
    words = board.panel("Errors per minute").locator(".only-read")
    expect(words).to_contain_text("3 errors in all")
    board.panel("Most frequent errors").get_by_role("button").click()
    dialog = board.page.get_by_role("dialog").filter(has_text="fingerprint")
    expect(dialog).to_contain_text("What to do: Correct the JSON at the place named")
    expect(dialog.locator(".samples li:not(.empty)")).to_have_count(3)
    board.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_hostile_text_is_shown_as_text(serve: Any, board: Any) -> None:
    address = serve().address
    board.open(f"{address}/dashboard/").live()
    board.upload(f"{HOSTILE.replace('/', '')}.json", json.dumps([HOSTILE, "a good day"]).encode())
    board.sees("Process a file", "2 of 2 records analysed", "{{7*7}}**b**")
    board.upload("x.csv", b"text\nhello there\n", Field_that_holds_the_text=HOSTILE)
    board.sees("Process a file", "<img src=x onerror=", "What to do")
    board.sees("Recent runs", "<img src=x onerror=")
    httpx.post(f"{address}/batches", json={"urls": [HOSTILE]})
    board.sees("Most frequent errors", "<img src=x onerror=")
    board.panel("Most frequent errors").get_by_role("button").filter(has_text="<img src=x").first.click()
    expect(board.page.get_by_role("dialog").filter(has_text="fingerprint")).to_contain_text("<img src=x onerror=")
    board.page.wait_for_timeout(500)
    assert board.page.title() == "Bulletproof dashboard"
    assert board.page.locator("img").count() == 0
    assert "49**b**" not in board.page.content()


def test_an_operator_retries_and_drops_a_kept_call(serve: Any, board: Any, tmp_path: Path) -> None:
    address = serve().address
    kept = KeptCalls(ResultStore(data_dir=tmp_path / "data"))

    @kept.keep(name="ask <b>")
    def ask(prompt: str) -> None:
        raise ConnectionError("nobody is there")

    with pytest.raises(ConnectionError):
        ask("secret words")
    kept.stop_thread()
    board.open(f"{address}/dashboard/").live()
    board.sees("Kept calls", "ask <b>", "waiting", "service_unavailable", "1 of 1 kept calls are left")
    panel = board.panel("Kept calls")
    expect(panel).not_to_contain_text("secret words")
    panel.get_by_role("button", name="Retry ask").click()
    expect(panel).to_contain_text("is run next")
    assert httpx.get(f"{address}/kept").json()["calls"][0]["due"] is None
    panel.get_by_role("button", name="Drop ask").click()
    board.page.get_by_role("dialog").get_by_role("button", name="Drop the call").click()
    expect(panel).to_contain_text("No call waits to be run again.")
    assert httpx.get(f"{address}/kept").json()["functions"]["ask <b>"]["dropped"] == 1


def test_an_operator_opens_and_resets_a_breaker(serve: Any, board: Any) -> None:
    address = serve().address
    board.open(f"{address}/dashboard/").live()
    breakers = board.panel("Circuit breakers")
    breakers.get_by_role("button", name="Force open database").click()
    sure = board.page.get_by_role("dialog").filter(has_text="Refuse all calls to")
    expect(sure).to_contain_text("Refuse all calls to database?")
    sure.get_by_role("button", name="Cancel").click()
    expect(breakers).to_contain_text("Closed")
    breakers.get_by_role("button", name="Force open database").click()
    sure.get_by_role("button", name="Refuse all calls").click()
    expect(breakers).to_contain_text("Forced open")
    expect(breakers.get_by_role("button", name="Force open database")).to_be_disabled()
    assert httpx.get(f"{address}/breakers").json()["breakers"]["database"]["state"] == "forced_open"
    board.sees("Health", "Degraded", "the circuit database is forced open")
    breakers.get_by_role("button", name="Reset database").click()
    expect(breakers).to_contain_text("Closed")
    board.sees("Health", "Healthy")


class TestLogin:
    def test_a_key_opens_the_page_and_logging_out_closes_it_everywhere(
        self, serve: Any, new_board: Callable[..., Any]
    ) -> None:
        board = new_board()
        board.open(f"{serve(api_keys='first-key,second-key').address}/dashboard/")
        assert board.page.url.endswith("/dashboard/login")
        board.page.get_by_label("API key").fill("not-a-key")
        board.page.keyboard.press("Enter")
        expect(board.page.get_by_role("alert")).to_have_text("The service does not take this key.")
        board.expect_refusals()
        board.page.get_by_label("API key").fill("second-key")
        board.page.get_by_role("button", name="Log in").click()
        board.live()
        cookie = next(one for one in board.page.context.cookies() if one["name"] == "bulletproof_dashboard")
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert "second-key" not in str(cookie)
        other = board.page.context.new_page()
        other.goto(board.page.url)
        expect(other.locator(".live")).to_contain_text("Live,")
        board.page.get_by_role("button", name="Log out").click()
        for page in (board.page, other):
            expect(page.get_by_label("API key")).to_be_visible()

    def test_uploads_are_made_with_the_key_of_the_session(self, serve: Any, board: Any) -> None:
        board.open(f"{serve(api_keys='only-key').address}/dashboard/")
        board.page.get_by_label("API key").fill("only-key")
        board.page.keyboard.press("Enter")
        board.live().upload("t.json", b'["what a lovely day"]')
        board.sees("Process a file", "1 of 1 records analysed")
        board.sees("Recent runs", "t.json")


class TestForEverybody:
    def test_on_a_phone_nothing_sticks_out(self, serve: Any, new_board: Callable[..., Any], samples: Path) -> None:
        board = new_board(has_touch=True)
        board.page.set_viewport_size({"width": 360, "height": 740})
        address = serve().address
        send(address, "a-name-without-any-space-" + "x" * 120 + ".csv", (samples / "reviews.csv").read_bytes())
        send(address, "broken.json", b'["' + b"y" * 300)
        board.open(f"{address}/dashboard/").live()
        board.sees("Recent runs", "a-name-without-any-space-")
        wide = board.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_can_be_read_in_both_colour_schemes(
        self, serve: Any, new_board: Callable[..., Any], scheme: str
    ) -> None:
        board = new_board(color_scheme=scheme)
        board.open(f"{serve().address}/dashboard/").live()
        for selector in ("h1", "h2", ".soft", ".status", ".chip", "button.plain", ".live"):
            assert contrast(board.page, selector) >= 4.5, selector
        dark = "body--dark" in (board.page.locator("body").get_attribute("class") or "")
        assert dark == (scheme == "dark")

    def test_the_colours_can_be_chosen(self, serve: Any, board: Any) -> None:
        board.open(f"{serve().address}/dashboard/").live()
        board.page.get_by_role("button", name="Colours: auto").click()
        expect(board.page.locator("body")).to_have_class(re.compile("body--dark"))
        board.page.get_by_role("button", name="Colours: dark").click()
        expect(board.page.locator("body")).to_have_class(re.compile("body--light"))

    def test_everything_works_by_keyboard(self, serve: Any, board: Any) -> None:
        address = serve().address
        send(address, "broken.json", b"[")
        board.open(f"{address}/dashboard/").live()
        board.sees("Most frequent errors", "invalid_json")
        names = []
        for _ in range(25):
            board.page.keyboard.press("Tab")
            focused = "document.activeElement.ariaLabel || document.activeElement.textContent"
            names.append(str(board.page.evaluate(focused)))
        for wanted in ("Skip to the panels", "6 hours", "Colours: auto", "Force open database", "Reset database"):
            assert any(wanted in name for name in names), (wanted, names)
        board.panel("Most frequent errors").get_by_role("button").focus()
        board.page.keyboard.press("Enter")
        expect(board.page.get_by_role("dialog").filter(has_text="fingerprint")).to_be_visible()

    def test_refreshing_keeps_the_focus(self, serve: Any, board: Any) -> None:
        board.open(f"{serve().address}/dashboard/").live()
        button = board.page.get_by_role("button", name="Reset database")
        button.focus()
        board.page.wait_for_timeout(4500)
        expect(button).to_be_focused()

    def test_fields_and_buttons_have_names(self, serve: Any, board: Any) -> None:
        board.open(f"{serve().address}/dashboard/").live()
        nameless = board.page.evaluate(
            """() => [...document.querySelectorAll('button, input, a[href], select, textarea')]
            .filter(e => e.offsetParent && e.tabIndex >= 0)
            .filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.title))
            .map(e => e.outerHTML)"""
        )
        assert nameless == []


def contrast(page: Page, selector: str) -> float:
    """Contrast of text and ground as WCAG 2 counts it."""
    script = """element => {
      const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const layers = [];
      for (let e = element; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
      const paint = colours => { canvas.fillStyle = '#fff'; canvas.fillRect(0, 0, 1, 1);
        for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
          .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); };
      const light = ([r, g, b]) => .2126 * r + .7152 * g + .0722 * b;
      const [a, b] = [paint(layers), paint([...layers, getComputedStyle(element).color])].map(light);
      return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }"""
    return float(page.locator(f"{selector}:visible").first.evaluate(script))
