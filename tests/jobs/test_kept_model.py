"""Kept calls under any order of events, beside what should come of them."""

import asyncio
import tempfile
from typing import Any

import hypothesis
import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bulletproof.store import KeptStore
from bulletproof.store.access import StoreAccess
from bulletproof.store.address import parse_address
from support.kept_calls import Wall


class Queue(RuleBasedStateMachine):
    """Whatever several processes do with the calls of a function, each ends once and in order, and none is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.wall = Wall()
        self.store = KeptStore(StoreAccess(parse_address(None, self.folder.name)), now=self.wall)
        self.kept: list[str] = []  # those that are to be run, in order
        self.claims: dict[str, tuple[str, float]] = {}  # live or run out: the call, and until when it is held
        self.failed: set[str] = set()
        self.by_hand: set[str] = set()
        self.count = 0
        self.done = self.dropped = 0

    def teardown(self) -> None:
        self.run(self.store.access.aclose())
        self.loop.close()
        self.folder.cleanup()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @property
    def time(self) -> float:
        return self.wall().timestamp()

    def held(self) -> list[str]:
        return [kept_id for kept_id, until in self.claims.values() if until > self.time]

    @rule()
    def keep(self) -> None:
        self.count += 1
        options: dict[str, Any] = {"key": None, "code": "x", "error": "x", "expires": None, "limit": 100}
        self.kept.append(self.run(self.store.keep("f", str(self.count), due=self.time, **options)))

    @rule()
    def claim(self) -> None:
        name = f"claim {len(self.claims)} {self.count} {self.time}"
        call, _ = self.run(self.store.claim("f", name, until=self.time + 10, spacing=0.0, ordered=True))
        lost = {kept_id for kept_id, until in self.claims.values() if until <= self.time}
        open_ones = [kept_id for kept_id in self.kept if kept_id not in self.failed]
        if self.held() or not open_ones:
            assert call is None
            return
        first = [one for one in open_ones if one in lost] or [one for one in open_ones if one in self.by_hand]
        assert call is not None
        assert call.id == (first or open_ones)[0]
        self.by_hand.discard(call.id)
        self.claims = {held: found for held, found in self.claims.items() if found[0] != call.id}
        self.claims[name] = (call.id, self.time + 10)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), how=st.sampled_from(["finish", "again", "failed", "renew"]))
    def settle(self, data: Any, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.claims)))
        kept_id, _ = self.claims[name]
        if how == "renew":
            assert self.run(self.store.renew(name, self.time + 10))
            self.claims[name] = (kept_id, self.time + 10)
            return
        del self.claims[name]
        if how == "finish":
            self.run(self.store.finish("f", name))
            self.kept.remove(kept_id)
            self.by_hand.discard(kept_id)
            self.done += 1
        else:
            self.run(self.store.put_back(name, due=self.time, state="failed" if how == "failed" else "waiting"))
            self.by_hand.discard(kept_id)
            self.failed |= {kept_id} if how == "failed" else set()

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), drop=st.booleans())
    def act(self, data: Any, drop: bool) -> None:
        kept_id = data.draw(st.sampled_from(self.kept))
        if drop:
            self.run(self.store.drop(kept_id))
            self.kept.remove(kept_id)
            self.claims = {name: found for name, found in self.claims.items() if found[0] != kept_id}
            self.dropped += 1
        else:
            self.run(self.store.retry(kept_id))
            if kept_id not in self.held():
                self.by_hand.add(kept_id)
                self.failed.discard(kept_id)
                # Asked for by hand, it is no longer one that somebody left behind.
                self.claims = {name: found for name, found in self.claims.items() if found[0] != kept_id}

    @rule(seconds=st.sampled_from([1, 11]))
    def wait(self, seconds: int) -> None:
        self.wall.forward(seconds)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert [call.id for call in self.run(self.store.calls())] == self.kept
        counts = self.run(self.store.counts()).get("f", dict.fromkeys(("kept", "done", "dropped"), 0))
        assert (counts["kept"], counts["done"], counts["dropped"]) == (self.count, self.done, self.dropped)
        assert len(self.held()) <= 1


TestQueue = Queue.TestCase
TestQueue.settings = hypothesis.settings(max_examples=15, stateful_step_count=25, deadline=None)
