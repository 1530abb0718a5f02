"""The folder of models: what goes into it, and what is found in it."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import joblib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulletproof.errors import InputValidationError, ModelLoadError, NotFoundError
from bulletproof.models import Limits, ModelRegistry, OutputSchema
from bulletproof.models.files import scratch
from support import hostile
from support.registries import WHAT, files_in

# Adding.


def test_a_version_is_a_folder_with_the_file_and_a_manifest_that_holds_its_checksum(
    own: ModelRegistry, model_file: Path
) -> None:
    limits = Limits(timeout_seconds=2)
    added = own.add("churn", "v1.0", model_file, **WHAT, limits=limits, isolated=True, description="Who leaves.")
    assert files_in(own.folder) == [".lock", "churn/rollout.json", "churn/v1.0/manifest.json", "churn/v1.0/model.onnx"]
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
    assert files_in(own.folder) in ([], [".lock"])


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
