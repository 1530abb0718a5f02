"""The house stands: floors, faces and the weight of the import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bulletproof

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "bulletproof"


def test_a_room_imports_only_rooms_on_lower_floors() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_bulletproof_needs_the_standard_library_alone() -> None:
    code = (
        "import sys, bulletproof;"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'bulletproof'}))"
    )
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['__main__']")


def test_the_core_needs_the_standard_library_alone() -> None:
    code = "import bulletproof.errors, bulletproof.resilience, bulletproof.monitor, bulletproof.chaos"
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); {code}"]
    subprocess.run(command, capture_output=True, text=True, check=True)


def test_the_face_is_sorted_and_every_name_is_there() -> None:
    assert bulletproof.__all__ == sorted(bulletproof.__all__)
    for name in bulletproof.__all__:
        assert getattr(bulletproof, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bulletproof.nothing  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen | {"__version__"} == set(bulletproof.__all__)


def test_no_module_is_longer_than_500_lines() -> None:
    modules = [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    long = [str(path) for path in modules if len(path.read_text().splitlines()) > 500]
    assert long == []
