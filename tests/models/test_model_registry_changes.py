"""The folder of models: trying out, removing, verifying, and many at the same time."""

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bulletproof.errors import InputValidationError, NotFoundError
from bulletproof.models import Feature, InputSchema, ModelRegistry, Rollout
from support.registries import TAKES, WHAT, files_in

# Removing, trying out.


def test_the_active_version_is_removed_only_when_it_is_the_last(churn: ModelRegistry) -> None:
    with pytest.raises(InputValidationError, match=r"v1\.0 is the active version of churn") as caught:
        churn.remove("churn", "v1.0")
    assert "Activate another first (v1.1)" in caught.value.hint
    churn.remove("churn", "v1.1")
    churn.remove("churn", "v1.0")
    assert churn.models() == []
    assert not (churn.folder / "churn").exists()
    with pytest.raises(NotFoundError):
        churn.remove("churn", "v1.0")


def test_removing_a_link_leaves_what_it_leads_to(churn: ModelRegistry, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(churn.folder / "churn/v1.1", outside)
    shutil.rmtree(churn.folder / "churn/v1.1")
    (churn.folder / "churn/v1.1").symlink_to(outside)
    assert "leads out" in churn.models()[0].versions[1].problem
    churn.remove("churn", "v1.1")
    assert files_in(outside) == ["manifest.json", "model.onnx"]


def test_a_candidate_is_tried_out_until_that_is_ended_or_it_is_activated_or_removed(churn: ModelRegistry) -> None:
    churn.canary("churn", "v1.1", 0.1)
    assert churn.rollout("churn").model_dump() == {
        "active": "v1.0", "candidate": {"version": "v1.1", "share": 0.1, "mode": "canary"},
    }  # fmt: skip
    churn.shadow("churn", "v1.1", 1)
    candidate = churn.models()[0].candidate
    assert candidate is not None
    assert (candidate.mode, candidate.share) == ("shadow", 1)
    churn.stop_rollout("churn")
    churn.stop_rollout("churn")
    assert churn.rollout("churn") == Rollout(active="v1.0")
    churn.canary("churn", "v1.1", 0.5)
    churn.activate("churn", "v1.1")
    assert churn.rollout("churn") == Rollout(active="v1.1")
    churn.canary("churn", "v1.0", 0.5)
    churn.remove("churn", "v1.0")
    assert churn.rollout("churn") == Rollout(active="v1.1")


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(churn: ModelRegistry, share: float) -> None:
    with pytest.raises(InputValidationError, match="share must be above 0 and at most 1"):
        churn.canary("churn", "v1.1", share)


def test_only_what_can_stand_in_for_the_active_version_is_tried_out(churn: ModelRegistry, model_file: Path) -> None:
    narrow = InputSchema(features=TAKES.features[:3])
    churn.add("churn", "v2.0", model_file, **WHAT | {"input": narrow})
    for version in ("v1.0", "v2.0"):
        with pytest.raises(InputValidationError):
            churn.canary("churn", version, 0.1)
    with pytest.raises(NotFoundError):
        churn.shadow("churn", "v9.9", 0.1)


# Verifying.


def test_verifying_says_of_each_stage_how_it_went(churn: ModelRegistry) -> None:
    (churn.folder / "churn/v1.1/model.onnx").write_bytes(b"something else")
    [good, bad] = churn.verify("churn")
    assert (good.manifest, good.checksum, good.loads, good.predicts, good.problem) == ("ok", "ok", "ok", "ok", "")
    assert (bad.manifest, bad.checksum, bad.loads, bad.predicts) == ("ok", "failed", "skipped", "skipped")
    assert bad.code == "model_tampered"
    assert [row.version for row in churn.verify("churn", "v1.0")] == ["v1.0"]
    with pytest.raises(NotFoundError):
        churn.verify("nothing")
    with pytest.raises(NotFoundError):
        churn.verify("churn", "v9.9")


def test_a_file_that_fits_its_checksum_but_is_no_model_fails_to_load(own: ModelRegistry, tmp_path: Path) -> None:
    (tmp_path / "rubbish.onnx").write_bytes(b"rubbish")
    own.add("churn", "v1.0", tmp_path / "rubbish.onnx", **WHAT)
    [row] = own.verify()
    assert (row.checksum, row.loads, row.predicts, row.code) == ("ok", "failed", "skipped", "model_load_failed")


def test_a_whole_number_is_tried_where_whole_numbers_are_due(own: ModelRegistry, model_file: Path) -> None:
    takes = InputSchema(
        features=(
            Feature(name="a", type="int", minimum=0.5, maximum=2),
            Feature(name="b", type="int", maximum=-0.5),
            Feature(name="c", minimum=-1e308, maximum=1e308),
            Feature(name="d"),
        )
    )
    own.add("churn", "v1.0", model_file, **WHAT | {"input": takes}, verify=True)


# At the same time.

_ADDER = """
import sys
from pathlib import Path
from bulletproof.errors import InputValidationError
from bulletproof.models import Feature, InputSchema, ModelRegistry, OutputSchema
folder, source, me = sys.argv[1:]
registry = ModelRegistry(Path(folder), bundled=False)
what = dict(type="onnx", input=InputSchema(features=(Feature(name="a"),)), output=OutputSchema(classes=("n", "y")))
won = 0
for number in range(20):
    try:
        registry.add("churn", f"v1.{number}", source, **what, description=me)
        won += 1
    except InputValidationError:
        pass
    registry.activate("churn", f"v1.{number}")
print(won)
"""


def test_processes_that_add_the_same_versions_each_win_some_and_readers_see_whole_ones(
    own: ModelRegistry, model_file: Path
) -> None:
    own.add("churn", "v0.1", model_file, **WHAT)
    command = [sys.executable, "-c", _ADDER, str(own.folder), str(model_file)]
    adders = [subprocess.Popen([*command, me], stdout=subprocess.PIPE, text=True) for me in ("one", "two")]
    seen: set[str] = set()
    problems: list[str] = []
    while any(adder.poll() is None for adder in adders):
        seen.add(own.manifest("churn").version)
        problems += [item.problem for model in own.models() for item in model.versions if item.problem]
        problems += [model.problem for model in own.models() if model.problem]
    won = [int(adder.communicate()[0]) for adder in adders]
    assert problems == []
    assert sum(won) == 20
    assert own.manifest("churn").version == "v1.19"
    assert len(own.models()[0].versions) == 21
    assert len(seen) > 1


def test_threads_may_ask_while_others_change(churn: ModelRegistry) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                assert churn.manifest("churn").version in ("v1.0", "v1.1")
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(40):
        churn.activate("churn", f"v1.{number % 2}")
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


class Versions(RuleBasedStateMachine):
    """Any order of adding, activating, removing and trying out, beside what should come of it."""

    numbers = st.integers(0, 3)

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "model.onnx").write_bytes(b"not looked at")
        self.registry = ModelRegistry(self.folder / "models", bundled=False)
        self.there: set[str] = set()
        self.active: str | None = None
        self.candidate: str | None = None

    def attempt(self, allowed: bool, change: Callable[..., object], *arguments: Any, **more: Any) -> bool:
        if allowed:
            change("churn", *arguments, **more)
        else:
            with pytest.raises((InputValidationError, NotFoundError)):
                change("churn", *arguments, **more)
        return allowed

    @rule(number=numbers)
    def add(self, number: int) -> None:
        version = f"v1.{number}"
        source = self.folder / "model.onnx"
        if self.attempt(version not in self.there, self.registry.add, version, source, **WHAT):
            self.there.add(version)
            self.active = self.active or version

    @rule(number=numbers)
    def activate(self, number: int) -> None:
        version = f"v1.{number}"
        if self.attempt(version in self.there, self.registry.activate, version):
            self.active = version
            self.candidate = None if self.candidate == version else self.candidate

    @rule(number=numbers)
    def remove(self, number: int) -> None:
        version = f"v1.{number}"
        allowed = version in self.there and (version != self.active or self.there == {version})
        if self.attempt(allowed, self.registry.remove, version):
            self.there.remove(version)
            self.active = self.active if self.there else None
            self.candidate = None if self.candidate == version else self.candidate

    @rule(number=numbers, mode=st.sampled_from(["canary", "shadow"]))
    def try_out(self, number: int, mode: str) -> None:
        version = f"v1.{number}"
        allowed = version in self.there and version != self.active
        if self.attempt(allowed, getattr(self.registry, mode), version, 0.5):
            self.candidate = version

    @rule()
    def stop(self) -> None:
        self.attempt(bool(self.there), self.registry.stop_rollout)
        self.candidate = None

    @invariant()
    def all_see_the_same(self) -> None:
        for registry in (self.registry, ModelRegistry(self.registry.folder, bundled=False)):
            listed = [
                (model.name, model.active, {item.version for item in model.versions}) for model in registry.models()
            ]
            assert listed == ([("churn", self.active, self.there)] if self.there else [])
            if self.active is None:
                with pytest.raises(NotFoundError):
                    registry.manifest("churn")
                continue
            assert registry.manifest("churn").version == self.active
            candidate = registry.rollout("churn").candidate
            assert (candidate.version if candidate else None) == self.candidate

    def teardown(self) -> None:
        assert not list(self.registry.folder.glob(".part-*"))
        shutil.rmtree(self.folder)


TestVersions = Versions.TestCase
TestVersions.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
