"""The queue: what it hands out, in which order, and that it neither loses nor starves anything."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bulletproof.pipeline.queue import Kind, WorkQueue

LANES = st.sampled_from(["a", "b", "c"])
KINDS = st.sampled_from(list(Kind))


def taken(queue: WorkQueue[str], now: float, count: int) -> list[str | None]:
    found = []
    for _ in range(count):
        entry = queue.pop(now)
        found.append(entry.item if entry else None)
        if entry:
            queue.leave(entry.lane, now)
    return found


def test_retries_come_by_due_time_then_priority_then_arrival() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for name, due, priority in (("late", 9, 5), ("low", 3, 0), ("high", 3, 1), ("low too", 3, 0), ("first", 1, -1)):
        queue.put(name, name, now=0, kind=Kind.AGAIN, due=due, priority=priority)
    assert taken(queue, 0, 1) == [None]
    assert taken(queue, 10, 5) == ["first", "high", "low", "low too", "late"]


def test_fresh_ones_come_by_priority_then_arrival() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for name, priority in (("a", 0), ("b", 0), ("c", 7)):
        queue.put(name, "lane", now=0, priority=priority)
    assert taken(queue, 0, 4) == ["c", "a", "b", None]


@given(st.lists(st.tuples(KINDS, LANES), min_size=1, max_size=60))
def test_of_three_handed_out_each_kind_that_is_ready_gets_one(work: list[tuple[Kind, str]]) -> None:
    queue: WorkQueue[Kind] = WorkQueue()
    for kind, lane in work:
        queue.put(kind, lane, now=0, kind=kind)
    order = []
    while entry := queue.pop(0):
        order.append(entry.item)
    assert sorted(order) == sorted(kind for kind, _ in work)
    for at in range(len(order) - 2):
        for kind in Kind:
            assert kind in order[at : at + 3] or kind not in order[at:]


def test_a_lane_that_is_parked_holds_up_nobody_else() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.put("waits", "down", now=0)
    queue.put("goes", "up", now=0)
    queue.park("down", 5, now=0)
    assert taken(queue, 0, 2) == ["goes", None]
    assert queue.wakes_at() == 5
    assert queue.parked(0) == {"down": 1}
    assert taken(queue, 5, 1) == ["waits"]


def test_a_narrowed_lane_lets_one_through_until_it_is_widened() -> None:
    queue: WorkQueue[int] = WorkQueue()
    for number in range(4):
        queue.put(number, "lane", now=0)
    queue.narrow("lane")
    assert queue.pop(0) is not None
    assert queue.pop(0) is None
    queue.widen("lane", 0)
    assert [queue.pop(0) is not None for _ in range(4)] == [True, True, True, False]


def test_a_host_is_asked_so_often_at_a_time_and_with_pauses() -> None:
    queue: WorkQueue[int] = WorkQueue(lane_limit=2, lane_delay=10)
    for number in range(4):
        queue.put(number, "lane", now=0)
    assert queue.pop(0) is not None
    assert queue.pop(9) is None
    assert queue.pop(10) is not None
    assert queue.pop(20) is None  # two run
    queue.leave("lane", 20)
    assert queue.pop(20) is not None


def test_only_later_work_is_handed_out_when_that_is_wanted() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.put("new", "host", now=0)
    queue.put("text", "analyze", now=0, kind=Kind.LATER)
    assert queue.pop(0, later_only=True).item == "text"
    assert queue.pop(0, later_only=True) is None
    assert queue.pop(0).item == "new"


def test_lanes_in_which_there_is_nothing_are_forgotten() -> None:
    queue: WorkQueue[int] = WorkQueue(lane_delay=1)
    for number in range(1000):
        queue.put(number, f"host{number}", now=0)
        queue.leave(queue.pop(0).lane, 0)
    queue.pop(2)
    assert not queue._lanes


class QueueMachine(RuleBasedStateMachine):
    """Against a plain list that is searched for what may be handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: WorkQueue[int] = WorkQueue(lane_limit=2, lane_delay=1.0)
        self.now = 0.0
        self.number = 0
        self.waiting: dict[int, tuple[str, Kind, float]] = {}
        self.running: list[str] = []
        self.parked: dict[str, float] = {}
        self.free_at: dict[str, float] = {}
        self.narrow: set[str] = set()

    def may_run(self, lane: str) -> bool:
        limit = 1 if lane in self.narrow else 2
        opens = max(self.parked.get(lane, -math.inf), self.free_at.get(lane, -math.inf))
        return self.running.count(lane) < limit and opens <= self.now

    @rule(lane=LANES, kind=KINDS, due=st.sampled_from([0, 1, 2, 5]), priority=st.sampled_from([0, 1]))
    def put(self, lane: str, kind: Kind, due: float, priority: int) -> None:
        at = 0.0 if kind is Kind.FRESH else self.now + due
        self.queue.put(self.number, lane, now=self.now, kind=kind, due=at, priority=priority)
        self.waiting[self.number] = (lane, kind, at)
        self.number += 1

    @rule()
    def pop(self) -> None:
        entry = self.queue.pop(self.now)
        ready = {n for n, (lane, _, due) in self.waiting.items() if due <= self.now and self.may_run(lane)}
        assert (entry is None) == (not ready)
        if entry is not None:
            assert entry.item in ready
            lane, kind, due = self.waiting.pop(entry.item)
            assert (lane, kind, due) == (entry.lane, entry.kind, entry.due)
            self.running.append(lane)
            if kind is not Kind.LATER:
                self.free_at[lane] = self.now + 1

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(self.running))
        self.running.remove(lane)
        self.queue.leave(lane, self.now)

    @rule(lane=LANES, seconds=st.sampled_from([1, 3]))
    def park(self, lane: str, seconds: float) -> None:
        self.queue.park(lane, self.now + seconds, self.now)
        self.parked[lane] = max(self.parked.get(lane, -math.inf), self.now + seconds)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def narrow_one(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted({lane for lane, _, _ in self.waiting.values()})))
        self.queue.narrow(lane)
        self.narrow.add(lane)

    @rule(lane=LANES)
    def widen(self, lane: str) -> None:
        self.queue.widen(lane, self.now)
        self.narrow.discard(lane)
        self.parked.pop(lane, None)

    @rule(seconds=st.sampled_from([0.5, 1, 4]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(lane=LANES)
    def discard(self, lane: str) -> None:
        gone = {n for n, (where, kind, _) in self.waiting.items() if where == lane and kind is Kind.AGAIN}
        self.queue.discard(lambda item: item in gone, self.now)
        for number in gone:
            del self.waiting[number]

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.waiting)
        # A lane that was forgotten, because it was empty, is as wide as a new one.
        self.narrow &= set(self.queue._lanes)

    @invariant()
    def it_knows_when_to_wake(self) -> None:
        later = [
            max(due, self.parked.get(lane, -math.inf), self.free_at.get(lane, -math.inf))
            for lane, _, due in self.waiting.values()
            if self.running.count(lane) < (1 if lane in self.narrow else 2)
        ]
        coming = [when for when in later if when > self.now]
        ready = len(coming) < len(later)
        if coming and not ready:
            assert self.queue.wakes_at() is not None
            assert self.queue.wakes_at() <= min(coming)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
