"""The folder of models: what may be wrong with it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulletproof.errors import ConfigurationError, ModelLoadError
from bulletproof.models import Manifest, ModelRegistry
from support.registries import WHAT

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
