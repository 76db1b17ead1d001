"""The rooms of the library: who may use whom. Every import counts, also one inside a function or for types alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

LIBRARY = REPOSITORY / "lib" / "tunelab"
# each room uses only itself and what stands before it
ORDER = """
errors glossary machine spec paces model data techniques config run losses fast answer train measure export chain
choice doctor worker flags as_code terminal curve teach data_cli evaluate_cli models_cli report_cli runs_cli sweep_cli
cli
""".split()
FILES = sorted(LIBRARY.rglob("*.py"))


def module_of(path: Path) -> str:
    """Its name inside the package: 'model.load'; a folder's `__init__` is the folder."""
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__")


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Every module a file imports; of `from folder import name` the module of that name, where it is one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            each = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name.removeprefix("tunelab.") in MODULES else str(node.module) for name in each}
    return found


def used_by(module: str) -> set[str]:
    """The modules of the library that a module imports."""
    return {name.removeprefix("tunelab.") for name in imported(MODULES[module]) if name.startswith("tunelab.")}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_file_stands_in_a_room_of_the_order():
    assert {room(module) for module in MODULES} - {""} == set(ORDER)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {""}))
def test_a_room_uses_only_what_stands_before_it(module):
    here = ORDER.index(room(module))
    later = {name for name in used_by(module) if ORDER.index(room(name)) > here}
    assert not later


def test_no_modules_import_each_other_in_a_circle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for name in sorted(used_by(module)):
            visit(name, (*path, module))
        done.add(module)

    for module in sorted(MODULES.keys() - {""}):
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_the_library_knows_neither_app_nor_notebook(path):
    tops = {name.partition(".")[0] for name in imported(path)}
    assert not tops & {"gradio", "IPython", "playground", "tests", "benchmarks"}


@pytest.mark.parametrize("folder", sorted({p.parent for p in FILES} - {LIBRARY}), ids=lambda p: p.name)
def test_every_room_says_what_lives_there(folder):
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert text
    assert len(text) > 100


@pytest.mark.parametrize(
    "module", ["errors", "spec", "config", "run.events", "run.progress", "run.run", "techniques", "choice", ""]
)
def test_describing_and_listing_runs_imports_no_torch(module):
    name = f"tunelab.{module}".rstrip(".")
    code = f"import sys, {name}; print(sorted({{'torch', 'transformers', 'gradio'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
