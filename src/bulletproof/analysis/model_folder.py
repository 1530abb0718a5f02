"""Text classifiers of the caller's own, from the model folder."""

import importlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bulletproof.analysis.classifier import TextClassifier
from bulletproof.errors import AIError, ModelLoadError, classify
from bulletproof.errors.installing import not_installed

logger = logging.getLogger("bulletproof.analysis")


class SkopsClassifier:
    """A scikit-learn pipeline over texts, saved with skops.

    Loading it runs none of its code: only types that skops itself trusts are taken, which linear models over TF-IDF are
    made of (skops, "Secure persistence").
    """

    def __init__(self, path: Path) -> None:
        try:
            io = importlib.import_module("skops.io")
        except ImportError as error:
            raise not_installed(f"skops is needed to load {path.name}", "models") from error
        try:
            self._model: Any = io.load(path, trusted=[])
        except Exception as error:
            raise ModelLoadError(
                f"{path.name} cannot be loaded: {type(error).__name__}",
                hint="Save it with skops.io.dump; linear models over TF-IDF or hashed words need no further trust.",
            ) from error
        classes = getattr(self._model, "classes_", None)
        if classes is None or not hasattr(self._model, "predict_proba"):
            raise ModelLoadError(f"{path.name} is no classifier with classes_ and predict_proba")
        self.name = path.stem
        self.classes: Sequence[str] = [str(name) for name in classes]

    def predict(self, texts: Sequence[str], /) -> list[list[float]]:
        return self._model.predict_proba(list(texts)).tolist()  # type: ignore[no-any-return]


class ModelFolder:
    """The text classifiers in a folder, each a ``*.skops`` file; changed files are loaded anew.

    Args:
        folder: The folder; it need not exist.

    Example:
        >>> list(ModelFolder(Path("no/such/folder")))
        []
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[tuple[int, int], TextClassifier | None]] = {}

    def __iter__(self) -> Iterator[TextClassifier]:
        for path in sorted(self._folder.glob("*.skops")):
            classifier = self._at(path)
            if classifier is not None:
                yield classifier

    def _at(self, path: Path) -> TextClassifier | None:
        try:
            facts = path.stat()
        except FileNotFoundError:
            return None
        stamp = (facts.st_mtime_ns, facts.st_size)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            self._known[path] = (stamp, self._load(path))
        return self._known[path][1]

    def _load(self, path: Path) -> TextClassifier | None:
        try:
            return SkopsClassifier(path)
        except AIError as error:
            # One broken file must not take the labels of the others with it.
            diagnosis = classify(error)
            logger.warning(
                "a text classifier is left out: %s",
                diagnosis.details,
                extra={"code": diagnosis.code, "hint": diagnosis.hint},
            )
            return None
