"""The page: header, panels, and the clock that keeps them fresh."""

from pathlib import Path
from typing import Any

from nicegui import ui
from starlette.requests import Request

from bulletproof.dashboard.guard import VISIT, Visit
from bulletproof.dashboard.panels import BreakersPanel, ErrorsPanel, HealthPanel, KeptPanel, RunsPanel, UploadPanel
from bulletproof.dashboard.tags import Button, Tag
from bulletproof.dashboard.watch import INTERVAL, Watch
from bulletproof.dashboard.wording import seconds

FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<path fill="#1558d6" d="M16 2 4 7v9c0 7 5 12 12 14 7-2 12-7 12-14V7z"/>'
    '<path fill="none" stroke="#fff" stroke-width="3" d="m10 16 4 4 8-9"/></svg>'
)
_STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
_HOURS = {1: "1 hour", 6: "6 hours", 24: "24 hours"}
_SHADES = {None: "Colours: auto", True: "Colours: dark", False: "Colours: light"}


@ui.page("/")
def dashboard(request: Request) -> None:
    visit: Visit = request.scope[VISIT]
    ui.add_head_html(f"<style>{_STYLE}</style>")
    _Page(visit)


class _Page:
    """One visitor's page."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._watch = Watch(visit.api, visit.session)
        self._dark = ui.dark_mode(None)
        Tag("a", "Skip to the panels", css="skip", href="#panels")
        with Tag("header", css="top"):
            self._header()
        with Tag("div", css="trouble", role="alert") as self._trouble:
            self._trouble_title = Tag("strong")
            self._trouble_text = Tag("span")
        self._trouble.show(False)
        with Tag("main", css="panels", id="panels", tabindex="-1"):
            self._panels: list[Any] = [
                HealthPanel(),
                ErrorsPanel(self._watch),
                BreakersPanel(self._watch),
                RunsPanel(),
                KeptPanel(self._watch),
            ]
            UploadPanel(self._watch)
        ui.timer(INTERVAL, self._refresh)

    def _header(self) -> None:
        Tag("h1", "Bulletproof")
        self._live = Tag("span", "Connecting …", css="live")
        with Tag("div", css="tools"):
            with Tag("div", css="choice", role="group", aria_label="Time shown"):
                self._hours = {hours: self._choice(hours, name) for hours, name in _HOURS.items()}
            self._shade = Button(_SHADES[None], self._next_shade, css="plain")
            if self._visit.session.key is not None:
                with Tag("form", method="post", action=f"{self._visit.root}/logout"):
                    Tag("button", "Log out", css="plain", type="submit")

    def _choice(self, hours: int, name: str) -> Button:
        async def choose() -> None:
            self._watch.hours = hours
            for other, button in self._hours.items():
                button.attribute("aria-pressed", str(other == hours).lower())
            await self._refresh(at_once=True)

        button = Button(name, choose, css="plain")
        button.attribute("aria-pressed", str(hours == self._watch.hours).lower())
        return button

    def _next_shade(self) -> None:
        shades = list(_SHADES)
        self._dark.value = shades[(shades.index(self._dark.value) + 1) % len(shades)]
        self._shade.say(_SHADES[self._dark.value])

    async def _refresh(self, *, at_once: bool = False) -> None:
        watch = self._watch
        if watch.session.alive:
            await watch.look(at_once=at_once)
        if not watch.session.alive or (watch.picture is not None and watch.picture.denied):
            # The guard decides what comes instead.
            ui.navigate.reload()
            return
        picture = watch.picture
        if watch.trouble is not None:
            seen = f" What you see is from {picture.at:%H:%M:%S} UTC." if picture else ""
            self._live.say("Offline")
            self._trouble_title.say("Cannot reach the service")
            self._trouble_text.say(
                f"{watch.trouble.details}. {watch.trouble.hint}{seen} Next try in {seconds(watch.wait)}."
            )
        elif picture is not None:
            self._live.say(f"Live, {picture.at:%H:%M:%S} UTC")
        self._live.mark_as("critical" if watch.trouble else "healthy")
        self._trouble.show(watch.trouble is not None)
        if picture is not None and watch.trouble is None:
            for part in self._panels:
                part.show(picture)
