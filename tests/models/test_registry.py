"""The folder of models: what is in it, what may be wrong with it, and who may change it at the same time."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bulletproof.errors import ConfigurationError, InputValidationError, ModelLoadError, NotFoundError
from bulletproof.models import Feature, InputSchema, Limits, Manifest, ModelRegistry, OutputSchema, Rollout
from bulletproof.models.files import scratch
from support import hostile

TAKES = InputSchema(features=tuple(Feature(name=name, minimum=0, maximum=30) for name in "abcd"))
GIVES = OutputSchema(classes=("setosa", "versicolor", "virginica"))
WHAT: dict[str, Any] = {"type": "onnx", "input": TAKES, "output": GIVES}


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A real model: the bundled one."""
    bundled = ModelRegistry(tmp_path / "none")
    path = tmp_path / "some model.onnx"
    shutil.copy(bundled.folder_of(bundled.manifest("iris", "v1.0")) / "model.onnx", path)
    return path


@pytest.fixture
def own(tmp_path: Path) -> ModelRegistry:
    """A registry without the models of the package."""
    return ModelRegistry(tmp_path / "models", bundled=False)


@pytest.fixture
def churn(own: ModelRegistry, model_file: Path) -> ModelRegistry:
    """One with two versions of a model."""
    own.add("churn", "v1.0", model_file, **WHAT)
    own.add("churn", "v1.1", model_file, **WHAT)
    return own


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Adding.


def test_a_version_is_a_folder_with_the_file_and_a_manifest_that_holds_its_checksum(
    own: ModelRegistry, model_file: Path
) -> None:
    limits = Limits(timeout_seconds=2)
    added = own.add("churn", "v1.0", model_file, **WHAT, limits=limits, isolated=True, description="Who leaves.")
    assert _files(own.folder) == [".lock", "churn/rollout.json", "churn/v1.0/manifest.json", "churn/v1.0/model.onnx"]
    assert added.sha256 == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert (added.limits, added.isolated, added.description) == (limits, True, "Who leaves.")
    assert added.created is not None
    assert own.manifest("churn", "v1.0") == added
    assert json.loads((own.folder_of(added) / "manifest.json").read_text())["sha256"] == added.sha256


def test_the_first_version_answers_and_later_ones_do_not_until_they_are_activated(churn: ModelRegistry) -> None:
    assert churn.manifest("churn").version == "v1.0"
    churn.activate("churn", "v1.1")
    assert churn.manifest("churn").version == "v1.1"


def test_a_version_is_never_overwritten(churn: ModelRegistry, model_file: Path) -> None:
    before = (churn.folder / "churn/v1.0/manifest.json").read_bytes()
    with pytest.raises(InputValidationError, match=r"churn v1\.0 is there already"):
        churn.add("churn", "v1.0", model_file, **WHAT)
    assert (churn.folder / "churn/v1.0/manifest.json").read_bytes() == before


@pytest.mark.parametrize("version", ["1.0", "v1", "v1.0.0.0", "latest", "V1.0", "v1.0 ", "v1.x", "", "v1.0/..", "v١.٠"])
def test_a_wrong_version_is_refused_with_what_is_expected(own: ModelRegistry, model_file: Path, version: str) -> None:
    with pytest.raises(InputValidationError, match=r"expected v, a number, a dot and a number, such as v1\.0"):
        own.add("churn", version, model_file, **WHAT)
    assert not own.folder.exists()


@pytest.mark.parametrize("name", ["Churn", "../churn", "a/b", ".hidden", "", "a" * 65, "ch urn", "churn\n"])
def test_a_wrong_name_is_refused_with_what_is_expected(own: ModelRegistry, model_file: Path, name: str) -> None:
    with pytest.raises(InputValidationError, match="expected lower case letters, digits"):
        own.add(name, "v1.0", model_file, **WHAT)


def test_a_file_that_is_missing_or_empty_or_of_another_checksum_leaves_nothing_behind(
    own: ModelRegistry, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(InputValidationError, match=r"there is no file .*nothing\.onnx") as missing:
        own.add("churn", "v1.0", tmp_path / "nothing.onnx", **WHAT)
    assert missing.value.code == "file_not_found"
    with pytest.raises(InputValidationError, match=r"empty\.onnx is empty"):
        own.add("churn", "v1.0", tmp_path / "empty.onnx", **WHAT)
    with pytest.raises(ModelLoadError, match="not 00000") as tampered:
        own.add("churn", "v1.0", model_file, **WHAT, sha256="0" * 64)
    assert tampered.value.code == "model_tampered"
    assert own.models() == []
    assert _files(own.folder) in ([], [".lock"])


def test_a_folder_is_a_version_too(own: ModelRegistry, model_file: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    (saved / "variables").mkdir(parents=True)
    shutil.copy(model_file, saved / "variables" / "data")
    added = own.add("deep", "v1.0", saved, **WHAT | {"type": "tensorflow"})
    assert (own.folder_of(added) / added.file / "variables" / "data").read_bytes() == model_file.read_bytes()
    assert own.manifest("deep") == added


def test_a_remote_model_has_an_address_and_no_file(own: ModelRegistry) -> None:
    added = own.add("far", "v1.0", "https://models.example.com", **WHAT | {"type": "remote"})
    assert (added.url, added.file, added.sha256) == ("https://models.example.com", "", "")
    assert own.manifest("far") == added


def test_what_fails_its_test_is_not_added(own: ModelRegistry, tmp_path: Path) -> None:
    (tmp_path / "rubbish.onnx").write_bytes(b"rubbish")
    with pytest.raises(ModelLoadError):
        own.add("churn", "v1.0", tmp_path / "rubbish.onnx", **WHAT, verify=True)
    assert own.models() == []


def test_a_model_that_answers_other_classes_than_it_says_is_not_added(own: ModelRegistry, model_file: Path) -> None:
    two = WHAT | {"output": OutputSchema(classes=("yes", "no"))}
    with pytest.raises(Exception, match=r"class|shape"):
        own.add("churn", "v1.0", model_file, **two, verify=True)
    assert own.models() == []


def test_what_a_crash_left_of_an_addition_is_not_listed_and_goes_in_time(own: ModelRegistry, model_file: Path) -> None:
    left = own.folder / ".part-0123456789abcdef"
    (left / "v1.0").mkdir(parents=True)
    assert own.models() == []
    own.add("churn", "v1.0", model_file, **WHAT)
    assert left.exists()
    os.utime(left, (0, 0))
    own.add("churn", "v1.1", model_file, **WHAT)
    assert not left.exists()


def test_what_a_killed_process_left_of_an_addition_goes_with_the_next_one(own: ModelRegistry, model_file: Path) -> None:
    own.folder.mkdir()
    with scratch(own.folder) as held:
        killed = own.folder / ".part-held-0123456789abcdef"
        (killed / "v1.0").mkdir(parents=True)
        own.add("churn", "v1.0", model_file, **WHAT)
        assert not killed.exists()
        assert held.exists()
    assert not held.exists()


def test_a_model_that_hangs_while_it_is_loaded_is_given_up_in_time(own: ModelRegistry, tmp_path: Path) -> None:
    file = tmp_path / "hangs.joblib"
    joblib.dump(hostile.HangsOnLoad(), file)
    what = WHAT | {"type": "sklearn"}
    for isolated in (False, True):
        with pytest.raises(ModelLoadError, match=r"churn v1\.0 was not loaded within 0\.3 s") as caught:
            own.add("churn", "v1.0", file, **what, isolated=isolated, verify=True, load_seconds=0.3)
        assert "--load-timeout" in caught.value.hint
    assert [path.name for path in own.folder.iterdir()] in ([], [".lock"])
    own.add("churn", "v1.0", file, **what)
    [found] = own.verify(load_seconds=0.3)
    assert (found.checksum, found.loads, found.code) == ("ok", "failed", "model_load_failed")
    assert "within 0.3 s" in found.problem


# Asking.


def test_the_default_model_answers_when_none_is_named(churn: ModelRegistry) -> None:
    assert ModelRegistry(churn.folder, default="churn").manifest().name == "churn"
    assert ModelRegistry(churn.folder).manifest().name == "iris"


def test_an_unknown_model_and_an_unknown_version_list_what_there_is(churn: ModelRegistry) -> None:
    with pytest.raises(NotFoundError, match="there is no model 'curn': there is churn") as model:
        churn.manifest("curn")
    with pytest.raises(NotFoundError, match=r"there is no version 'v9\.9' of churn: there are v1\.0, v1\.1") as version:
        churn.manifest("churn", "v9.9")
    assert (model.value.code, version.value.code) == ("unknown_model", "unknown_model_version")


@given(name=st.text(max_size=80), version=st.none() | st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_name_leads_anywhere_else(name: str, version: str | None) -> None:
    registry = ModelRegistry(Path("no/such/folder"))
    if (name, version) not in {("iris", None), ("iris", "v1.0"), ("iris", "v1.1")}:
        with pytest.raises(NotFoundError):
            registry.manifest(name, version)


def test_versions_are_listed_by_number_not_by_letter(own: ModelRegistry, model_file: Path) -> None:
    for version in ("v10.0", "v2.0", "v1.10", "v1.9"):
        own.add("churn", version, model_file, **WHAT)
    [model] = own.models()
    assert [item.version for item in model.versions] == ["v1.9", "v1.10", "v2.0", "v10.0"]
    assert model.active == "v10.0"  # the first added


def test_a_change_by_another_process_is_seen_at_the_next_question(churn: ModelRegistry) -> None:
    reader = ModelRegistry(churn.folder, bundled=False)
    before = reader.manifest("churn")
    assert reader.manifest("churn") is before  # not read again
    churn.activate("churn", "v1.1")
    assert reader.manifest("churn").version == "v1.1"
    path = churn.folder / "churn/v1.1/manifest.json"
    changed = json.loads(path.read_text()) | {"description": "Better."}
    path.write_text(json.dumps(changed))
    assert reader.manifest("churn").description == "Better."


def test_a_folder_copied_in_by_hand_is_a_model_whose_oldest_version_answers(
    churn: ModelRegistry, tmp_path: Path
) -> None:
    (churn.folder / "churn/rollout.json").unlink()
    assert churn.manifest("churn").version == "v1.0"


def test_own_versions_stand_beside_those_of_the_package(tmp_path: Path, model_file: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    registry.add("iris", "v2.0", model_file, **WHAT)
    [iris] = registry.models()
    assert [(item.version, item.bundled) for item in iris.versions] == [
        ("v1.0", True), ("v1.1", True), ("v2.0", False),
    ]  # fmt: skip
    assert iris.active == "v1.0"
    registry.activate("iris", "v2.0")
    assert registry.manifest().version == "v2.0"
    with pytest.raises(InputValidationError, match="comes with bulletproof"):
        registry.remove("iris", "v1.0")


def test_an_own_version_goes_before_one_of_the_package_as_soon_as_it_is_there(
    own: ModelRegistry, tmp_path: Path, model_file: Path
) -> None:
    registry = ModelRegistry(own.folder)
    assert registry.manifest().description
    added = own.add("iris", "v1.0", model_file, **WHAT)
    assert registry.manifest() == added
    assert registry.folder_of(added) == own.folder / "iris" / "v1.0"
    shutil.rmtree(own.folder / "iris")
    assert registry.manifest().description


# Broken on purpose.


def _no_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def _unknown_field(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "rm -rf /"}))


def _another_name(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "iris"}))


def _file_elsewhere(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"file": "../../../secret"}))


def _link_out(folder: Path) -> None:
    secret = folder.parents[2] / "secret.onnx"
    secret.write_bytes(b"secret")
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(secret)


def _no_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _manifest_is_a_folder(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def _huge(folder: Path) -> None:
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(17 * 2**20)


def _infinite(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("30.0", "Infinity"))


def _deep(folder: Path) -> None:
    (folder / "manifest.json").write_text("[" * 100_000)


def _pipe(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_no_json, "manifest.json: Invalid JSON"),
        (_unknown_field, "manifest.json: run: Extra inputs"),
        (_another_name, "is that of iris v1.1, but lies in churn/v1.1"),
        (_file_elsewhere, "manifest.json: file"),
        (_link_out, "model.onnx leads out of the folder"),
        (_no_file, "model.onnx is missing"),
        (_no_manifest, "manifest.json is missing"),
        (_manifest_is_a_folder, "manifest.json is no file"),
        (_huge, "manifest.json is larger than 16 MiB"),
        (_infinite, "manifest.json: input.features.0.maximum"),
        (_deep, "manifest.json: Invalid JSON: recursion limit"),
        (_pipe, "model.onnx is no file"),
    ],
)
def test_a_broken_version_is_listed_with_its_problem_and_hinders_no_other(
    churn: ModelRegistry, damage: Callable[[Path], None], told: str
) -> None:
    damage(churn.folder / "churn" / "v1.1")
    [model] = churn.models()
    assert [bool(item.manifest) for item in model.versions] == [True, False]
    assert told in model.versions[1].problem
    assert churn.manifest("churn").version == "v1.0"
    with pytest.raises(ModelLoadError) as caught:
        churn.manifest("churn", "v1.1")
    assert told in str(caught.value)
    [good, bad] = churn.verify("churn")
    assert (good.problem, bad.manifest, bad.loads) == ("", "failed", "skipped")
    assert told in bad.problem
    churn.remove("churn", "v1.1")
    assert [item.version for item in churn.models()[0].versions] == ["v1.0"]


def test_a_repaired_version_is_usable_again_within_a_second(tmp_path: Path, model_file: Path) -> None:
    now = 100.0
    registry = ModelRegistry(tmp_path / "models", bundled=False, clock=lambda: now)
    added = registry.add("churn", "v1.0", model_file, **WHAT)
    (registry.folder_of(added) / "model.onnx").unlink()
    registry = ModelRegistry(tmp_path / "models", bundled=False, clock=lambda: now)
    with pytest.raises(ModelLoadError, match=r"model\.onnx is missing"):
        registry.manifest("churn")
    shutil.copy(model_file, registry.folder_of(added) / "model.onnx")
    now += 1
    assert registry.manifest("churn") == added


def test_strange_folders_and_files_are_named_not_fallen_over(churn: ModelRegistry) -> None:
    (churn.folder / "texts.skops").touch()
    (churn.folder / "empty").mkdir()
    (churn.folder / "Not A Name").mkdir()
    (churn.folder / "churn" / "latest").mkdir()
    (churn.folder / "loop").symlink_to(churn.folder / "loop")
    os.mkdir(os.fsencode(churn.folder) + b"/\xff\xfe")  # noqa: PTH102
    listed = {model.name: model for model in churn.models()}
    assert set(listed) == {"Not A Name", "churn", "\\udcff\\udcfe"}
    assert "expected" not in listed["churn"].problem
    assert "lower case letters" in listed["Not A Name"].problem
    assert {item.version: item.problem for item in listed["churn"].versions}["latest"].startswith("no version")
    json.dumps([model.name for model in listed.values()]).encode()
    assert {row.name for row in churn.verify() if row.problem} == {"Not A Name", "churn", "\\udcff\\udcfe"}


def test_a_broken_rollout_takes_the_default_but_no_version_and_is_mended_by_activating(churn: ModelRegistry) -> None:
    (churn.folder / "churn/rollout.json").write_text('{"active": "newest"}')
    with pytest.raises(ModelLoadError, match=r"rollout\.json: active"):
        churn.manifest("churn")
    assert churn.manifest("churn", "v1.0").version == "v1.0"
    assert "rollout.json" in churn.models()[0].problem
    churn.add("churn", "v1.2", churn.folder / "churn/v1.0/model.onnx", **WHAT)
    churn.activate("churn", "v1.1")
    assert churn.manifest("churn").version == "v1.1"


def test_an_active_version_that_is_gone_is_said_so(churn: ModelRegistry) -> None:
    shutil.rmtree(churn.folder / "churn/v1.0")
    with pytest.raises(ModelLoadError, match=r"v1\.0 of churn is the active one, but it is gone") as caught:
        churn.manifest("churn")
    assert "bulletproof models activate churn" in caught.value.hint
    assert "is gone" in churn.models()[0].problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_said_so(churn: ModelRegistry) -> None:
    churn.folder.chmod(0)
    try:
        with pytest.raises(ConfigurationError, match="cannot be read"):
            churn.models()
    finally:
        churn.folder.chmod(0o755)


@given(junk=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*Manifest.model_fields, "x"]), inner, max_size=6),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_whatever_a_manifest_holds_it_is_a_typed_error(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("registry")
    (folder / "churn" / "v1.0").mkdir(parents=True)
    (folder / "churn" / "v1.0" / "manifest.json").write_bytes(junk)
    registry = ModelRegistry(folder, bundled=False)
    assert registry.models()[0].versions[0].problem
    with pytest.raises(ModelLoadError):
        registry.manifest("churn", "v1.0")


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
    assert _files(outside) == ["manifest.json", "model.onnx"]


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
