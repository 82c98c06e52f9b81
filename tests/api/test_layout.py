"""The layout's one trap, and the borders between packages."""

import operator
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = os.pathsep.join(str(ROOT / folder) for folder in ("operator", "trainer-image", "."))


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_operator_is_the_standard_librarys():
    assert Path(str(operator.__file__)).parent == Path(sysconfig.get_path("stdlib"))
    assert operator.itemgetter(1)("ab") == "b"


@pytest.mark.parametrize("file", ["operator/__init__.py", "operator/operator.py", "tests/operator"])
def test_nothing_shadows_it(file: str):
    assert not (ROOT / file).exists()


def test_it_is_so_from_the_repositorys_root_too():
    """A folder without __init__.py loses to any module of its name, wherever it stands on the path."""
    program = "import operator, darkroom_api.names; print(operator.itemgetter(1)('ab'), operator.__file__)"
    done = run(sys.executable, "-c", program, PYTHONPATH=SOURCES)
    assert done.stdout.split() == ["b", str(operator.__file__)], done.stderr


def test_import_contracts_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = run(str(linter), "--no-cache", PYTHONPATH=SOURCES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_needs_pydantic_alone():
    """What a client of the API installs: nothing else comes in by import."""
    program = (
        "import sys, pkgutil, importlib, darkroom_api\n"
        "for module in pkgutil.walk_packages(darkroom_api.__path__, 'darkroom_api.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    done = run(sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'operator')!r})\n{program}")
    allowed = {"darkroom_api", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    foreign = {name for name in done.stdout.split() if not name.startswith("_")} - allowed
    assert (done.returncode, foreign) == (0, set()), done.stderr
