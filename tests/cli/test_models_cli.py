"""``bulletproof models`` as users run it, on real files."""

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from typer.testing import CliRunner

from bulletproof.cli import app
from bulletproof.errors import AIError, InputValidationError
from bulletproof.models import ModelRegistry
from support import hostile

FEATURES = "sepal length:0:30,sepal width:0:30,petal length:0:30,petal width:0:30"
CLASSES = "setosa,versicolor,virginica"


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code, what it printed, and the error that its user is shown."""

    returncode: int
    stdout: str
    error: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, which is quicker than one of its own."""
    monkeypatch.chdir(tmp_path)
    variables = {"BULLETPROOF_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "160", "TERMINAL_WIDTH": "160"}

    def run(*arguments: str) -> Done:
        done = CliRunner().invoke(app, ["models", *arguments], env=variables)
        error = done.exception
        if isinstance(error, AIError):
            return Done(2 if isinstance(error, InputValidationError) else 1, done.stdout, f"{error} {error.hint}")
        assert error is None or isinstance(error, SystemExit)
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    registry = ModelRegistry(tmp_path / "none")
    path = tmp_path / "iris.onnx"
    shutil.copy(registry.folder_of(registry.manifest()) / "model.onnx", path)
    return path


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "data" / "models")


def test_a_version_from_its_addition_to_its_removal(run: Run, onnx: Path, registry: ModelRegistry) -> None:
    added = run("add", "iris", "v2.0", onnx.name, "--features", FEATURES, "--classes", CLASSES, "--timeout", "2")
    assert added.returncode == 0, added.error
    assert "iris v2.0 is added; v1.0 answers" in added.stdout
    manifest = registry.manifest("iris", "v2.0")
    assert manifest.type == "onnx"
    assert manifest.limits.timeout_seconds == 2
    first = manifest.input.features[0]
    assert (first.name, first.minimum, first.maximum) == ("sepal length", 0, 30)

    assert run("canary", "iris", "v2.0", "--share", "0.1").returncode == 0
    assert "canary 10.0%" in run("list").stdout
    assert run("shadow", "iris", "v2.0").returncode == 0
    assert "shadow 100.0%" in run("list").stdout
    assert run("stop", "iris").returncode == 0
    assert run("activate", "iris", "v2.0").returncode == 0
    assert registry.manifest().version == "v2.0"

    refused = run("remove", "iris", "v2.0")
    assert refused.returncode == 2
    assert "Activate another first (v1.0, v1.1)" in refused.error
    run("activate", "iris", "v1.1")
    assert run("remove", "iris", "v2.0").returncode == 0
    assert "v2.0" not in run("list").stdout


def test_the_list_is_json_when_asked(run: Run, registry: ModelRegistry) -> None:
    (registry.folder / "iris" / "v3.0").mkdir(parents=True)
    (registry.folder / "iris" / "v3.0" / "manifest.json").write_text("{")
    told = json.loads(run("list", "--json").stdout)
    assert told["default"] == "iris"
    [iris] = told["models"]
    assert (iris["active"], iris["candidate"]) == ("v1.0", None)
    assert [item["version"] for item in iris["versions"]] == ["v1.0", "v1.1", "v3.0"]
    assert iris["versions"][0]["manifest"]["output"]["classes"] == CLASSES.split(",")
    assert "Invalid JSON" in iris["versions"][2]["problem"]
    assert "broken" in run("list").stdout


def test_what_others_wrote_does_nothing_to_a_terminal(run: Run, registry: ModelRegistry) -> None:
    (registry.folder / "\x1b[31m[red]").mkdir(parents=True)
    shown = run("list").stdout
    assert "\x1b" not in shown
    assert "?[31m[red]" in shown


def test_verifying_exits_with_1_when_something_is_wrong(run: Run, registry: ModelRegistry, onnx: Path) -> None:
    assert run("verify").returncode == 0
    run("add", "flower", "v1.0", onnx.name, "--features", FEATURES, "--classes", CLASSES)
    (registry.folder / "flower/v1.0/model.onnx").write_bytes(b"changed")
    done = run("verify", "--json")
    assert done.returncode == 1
    assert [(row["name"], row["version"], row["checksum"], row["code"]) for row in json.loads(done.stdout)] == [
        ("flower", "v1.0", "failed", "model_tampered"), ("iris", "v1.0", "ok", ""), ("iris", "v1.1", "ok", ""),
    ]  # fmt: skip
    shown = run("verify", "flower")
    assert "restore it from a trusted source" in " ".join(shown.stdout.split())
    assert run("verify", "nothing").returncode == 2


def test_a_regression_runs_isolated_with_features_from_a_file(
    run: Run, tmp_path: Path, registry: ModelRegistry
) -> None:
    x, y = load_iris(return_X_y=True)
    joblib.dump(LinearRegression().fit(x, y), tmp_path / "price.joblib")
    features = [{"name": name, "minimum": 0} for name in "abcd"]
    (tmp_path / "features.json").write_text(json.dumps(features))
    done = run(
        "add", "price", "v1.0", "price.joblib", "--features", "features.json", "--regression", "--isolated",
        "--memory-mib", "512", "--description", "What it costs.",
    )  # fmt: skip
    assert done.returncode == 0, done.error
    manifest = registry.manifest("price")
    assert (manifest.type, manifest.isolated, manifest.limits.memory_bytes) == ("sklearn", True, 512 * 2**20)
    assert manifest.output.kind == "regression"
    assert manifest.description == "What it costs."


def test_a_manifest_says_it_all(run: Run, tmp_path: Path, onnx: Path, registry: ModelRegistry) -> None:
    manifest = registry.manifest("iris", "v1.1").model_dump(mode="json")
    (tmp_path / "m.json").write_text(json.dumps(manifest | {"limits": {"max_concurrent": 3}}))
    done = run("add", "flower", "v1.0", onnx.name, "--manifest", "m.json", "--timeout", "1")
    assert done.returncode == 0, done.error
    added = registry.manifest("flower")
    assert (added.limits.max_concurrent, added.limits.timeout_seconds) == (3, 1)
    assert added.description == manifest["description"]
    assert added.sha256 == hashlib.sha256(onnx.read_bytes()).hexdigest()


def test_what_does_not_stand_the_test_is_not_added(run: Run, tmp_path: Path, registry: ModelRegistry) -> None:
    x, y = load_iris(return_X_y=True)
    joblib.dump(LogisticRegression(max_iter=1000).fit(x, y), tmp_path / "m.joblib")
    done = run("add", "flower", "v1.0", "m.joblib", "--features", "a,b", "--classes", CLASSES)
    assert done.returncode == 1
    assert ".part-" not in done.error
    assert [model.name for model in registry.models()] == ["iris"]
    assert (
        run("add", "flower", "v1.0", "m.joblib", "--features", "a,b", "--classes", CLASSES, "--no-verify").returncode
        == 0
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["flower", "v1.0", "iris.onnx"], "say what goes in and what comes out"),
        (["flower", "v1.0", "iris.onnx", "--features", "a"], "say what goes in and what comes out"),
        (["flower", "1.0", "iris.onnx", "--features", "a", "--regression"], "such as v1.0"),
        (["Flower", "v1.0", "iris.onnx", "--features", "a", "--regression"], "lower case letters"),
        (["flower", "v1.0", "iris.onnx", "--features", "a:x", "--regression"], "is not NAME, NAME:LEAST"),
        (["flower", "v1.0", "iris.onnx", "--features", ":1:2", "--regression"], "is not NAME, NAME:LEAST"),
        (
            ["flower", "v1.0", "iris.onnx", "--features", "a:9:1", "--regression"],
            "the least value 9 is above the greatest 1",
        ),
        (["flower", "v1.0", "iris.onnx", "--features", "a,a", "--regression"], "two of the feature 'a'"),
        (["flower", "v1.0", "iris.onnx", "--features", "no.json", "--regression"], "there is no file no.json"),
        (["flower", "v1.0", "iris.onnx", "--features", "bad.json", "--regression"], "bad.json is not valid JSON"),
        (["flower", "v1.0", "iris.onnx", "--features", "a", "--classes", "one"], "at least two classes"),
        (["flower", "v1.0", "iris.onnx", "--manifest", "bad.json", "--regression"], "--manifest says it all"),
        (["flower", "v1.0", "iris.onnx", "--manifest", "list.json"], "holds no JSON object"),
        (["flower", "v1.0", "iris.onnx", "--manifest", "odd.json"], "limits: Input should be a valid dict"),
        (["flower", "v1.0", "no.onnx", "--features", "a", "--regression"], "there is no file no.onnx"),
        (["flower", "v1.0", "bad.json", "--features", "a", "--regression"], "this is a text file"),
        (["iris", "v1.0", "iris.onnx", "--features", "a", "--regression"], "iris v1.0 is there already"),
    ],
)
def test_wrong_use_exits_with_2_and_says_what_is_expected(
    run: Run, tmp_path: Path, onnx: Path, arguments: list[str], told: str
) -> None:
    (tmp_path / "bad.json").write_text("{,}")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "odd.json").write_text('{"limits": [], "input": 1}')
    done = run("add", *arguments, "--no-verify")
    assert done.returncode == 2
    assert told in " ".join(done.error.split())


def test_inspecting_says_what_a_file_would_do_and_does_it_not(run: Run, tmp_path: Path, onnx: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return os.mkdir, (str(tmp_path / "hacked"),)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    done = run("inspect", "evil.pkl")
    assert done.returncode == 0
    assert re.search(r"loading it runs code +it can", done.stdout)
    assert "posix.mkdir" in done.stdout
    assert not (tmp_path / "hacked").exists()
    facts = json.loads(run("inspect", onnx.name, "--json").stdout)
    assert (facts["format"], facts["runs_code"]) == ("onnx", False)
    assert run("inspect", "nothing.pkl").returncode == 1


def test_a_process_of_its_own_prints_what_was_wrong_and_what_to_do_and_no_traceback(tmp_path: Path) -> None:
    variables = {"PATH": os.environ["PATH"], "BULLETPROOF_DATA_DIR": str(tmp_path), "COLUMNS": "160"}
    command = [sys.executable, "-m", "bulletproof", "models", "activate", "iris", "v9.9"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "Unknown model version: there is no version 'v9.9' of iris: there are v1.0, v1.1",
        "What to do: Choose one of the versions listed.",
    ]


def test_the_doctor_names_broken_models_and_a_default_that_is_not_there(
    tmp_path: Path, registry: ModelRegistry
) -> None:
    def finding(**environment: str) -> dict[str, str]:
        variables = {"BULLETPROOF_DATA_DIR": str(tmp_path / "data"), **environment}
        told = json.loads(CliRunner().invoke(app, ["doctor", "--json"], env=variables).stdout)
        return next(item for item in told if item["subject"] == "models")

    assert finding()["found"] == "2 versions; iris v1.0 answers POST /predict"
    assert "there is no model 'churn'" in finding(BULLETPROOF_DEFAULT_MODEL="churn")["found"]
    (registry.folder / "churn" / "v1.0").mkdir(parents=True)
    assert finding()["status"] == "problem"
    assert "churn v1.0: manifest.json is missing" in finding()["found"]


def test_every_command_shows_an_example(run: Run) -> None:
    for command in ("list", "add", "verify", "activate", "remove", "canary", "shadow", "stop", "inspect"):
        assert f"bulletproof models {command}" in run(command, "--help").stdout.replace("\n", " ")


def test_a_model_whose_loading_hangs_is_given_up_in_time(run: Run, tmp_path: Path) -> None:
    joblib.dump(hostile.HangsOnLoad(), tmp_path / "hangs.joblib")
    what = ("hangs", "v1.0", "hangs.joblib", "--type", "sklearn", "--features", "a", "--regression")
    done = run("add", *what, "--load-timeout", "0.3")
    assert "hangs v1.0 was not loaded within 0.3 s" in done.error
    assert run("add", *what, "--no-verify").returncode == 0
    done = run("verify", "hangs", "--load-timeout", "0.3", "--json")
    assert "within 0.3 s" in json.loads(done.stdout)[0]["problem"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_an_addition_that_is_broken_off_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    joblib.dump(hostile.HangsOnLoad(), tmp_path / "hangs.joblib")
    process = subprocess.Popen(
        [sys.executable, "-m", "bulletproof", "models", "add", "hangs", "v1.0", "hangs.joblib", "--type", "sklearn",
         "--features", "a", "--regression"],
        cwd=tmp_path, env=os.environ | {"BULLETPROOF_DATA_DIR": "data"}, stderr=subprocess.PIPE,
    )  # fmt: skip
    models = tmp_path / "data/models"
    try:
        for _ in range(600):
            if list(models.glob(".part-*/v1.0/manifest.json")):
                break
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode != 0
    assert list(models.iterdir()) == []
