"""Train the two versions of the default model and write them into the package.

    python training/train_iris.py [--out FOLDER]

The data is Fisher's iris, which scikit-learn bundles: four lengths in centimetres, three species. The run is
deterministic and takes a few seconds: the same libraries give the same bytes. The accuracy in each description is
that of flowers held out: five folds, ten times over, each time fitted anew on the others.
"""

import argparse
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bulletproof.models.manifest import Feature, InputSchema, Manifest, OutputSchema

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "bulletproof" / "models" / "bundled"
SEED = 1936
CREATED = datetime(2026, 11, 24, tzinfo=UTC)
OPSET = 18
FEATURES = ("sepal length", "sepal width", "petal length", "petal width")
# Far beyond any flower: what is refused is nonsense, such as millimetres or a negative length.
LONGEST_CM = 30.0
RECIPES: dict[str, tuple[str, Any]] = {
    "v1.0": (
        "Logistic regression on standardised lengths",
        make_pipeline(StandardScaler(), LogisticRegression(C=10.0, max_iter=1000)),
    ),
    "v1.1": (
        "Extremely randomised trees",
        ExtraTreesClassifier(n_estimators=60, max_depth=5, min_samples_leaf=2, random_state=SEED),
    ),
}


def held_out(recipe: Any, x: Any, y: Any) -> float:
    """Return the share of flowers named rightly by a model that never saw them."""
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=10, random_state=SEED)
    return float(np.mean(cross_val_score(recipe, x, y, cv=folds)))


def fit(recipe: Any, x: Any, y: Any) -> Any:
    """Fit on all flowers; figures of a linear model are rounded, so that no processor's arithmetic shows in them."""
    fitted = recipe.fit(x, y)
    for part in getattr(fitted, "named_steps", {}).values():
        for name in ("mean_", "scale_", "coef_", "intercept_"):
            if hasattr(part, name):
                setattr(part, name, np.round(getattr(part, name), 4))
    return fitted


def convert(fitted: Any, x: Any) -> bytes:
    """Return the model as ONNX; stop if it does not say what scikit-learn says."""
    model = to_onnx(fitted, x[:1].astype(np.float32), options={id(fitted): {"zipmap": False}}, target_opset=OPSET)
    model.graph.name = "iris"
    written = bytes(model.SerializeToString(deterministic=True))
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})
    if not (
        np.array_equal(labels, fitted.predict(x)) and np.allclose(probabilities, fitted.predict_proba(x), atol=1e-4)
    ):
        raise SystemExit("the converted model answers something else than the fitted one")
    return written


def write(folder: Path) -> None:
    """Train and write both versions."""
    data = load_iris()
    x, y = data.data, data.target
    for version, (what, recipe) in RECIPES.items():
        accuracy = held_out(recipe, x, y)
        model = convert(fit(recipe, x, y), x)
        manifest = Manifest(
            name="iris",
            version=version,
            type="onnx",
            file="model.onnx",
            sha256=hashlib.sha256(model).hexdigest(),
            input=InputSchema(
                features=tuple(Feature(name=name, unit="cm", minimum=0, maximum=LONGEST_CM) for name in FEATURES)
            ),
            output=OutputSchema(classes=tuple(str(name) for name in data.target_names)),
            description=f"Species of an iris by four lengths. {what}, trained on the 150 flowers of Fisher (1936); "
            f"accuracy on held-out flowers {accuracy:.3f} (5 folds, 10 times).",
            created=CREATED,
        )
        place = folder / "iris" / version
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.onnx").write_bytes(model)
        (place / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        print(f"{version}: {what}: {accuracy:.3f} on held-out flowers, {len(model):,} bytes")
    (folder / "iris" / "rollout.json").write_text('{"active": "v1.0"}\n', encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the default model.")
    parser.add_argument("--out", type=Path, default=PACKAGE, help="folder to write to; by default the package's")
    write(parser.parse_args().out)
