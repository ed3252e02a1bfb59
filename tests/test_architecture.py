"""The rules of ARCHITECTURE.md, read from its own table, held against the code."""

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stapes.options import EXTRA_OF

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "stapes"
IMPORT_NAMES = {"scikit-learn": ["sklearn"], "jinja2": ["jinja2", "markupsafe"]}
LONGEST_FUNCTION, LONGEST_FILE, LONGEST_MEDIAN = 60, 400, 10


def documented():
    """Module or package -> the extra it needs, in the order of the table, lowest first."""
    rows = re.findall(
        r"^\| (`.+?) \| (\w+) \| .+ \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M
    )
    return {
        name: extra for names, extra in rows for name in re.findall(r"`(\w+)(?:\.py|/)`", names)
    }


def python_files(folder):
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def component(path):
    """The row of the table that a file belongs to: its module, or the package it lies in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


TREES = {path: ast.parse(path.read_text()) for path in python_files(PACKAGE)}
MODULES = {path: component(path) for path in TREES if path != PACKAGE / "__init__.py"}


def imported(node):
    """Dotted names that one import statement may load; all that it names after ``from``, too."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute here"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def all_imports(tree):
    return {name for node in ast.walk(tree) for name in imported(node)}


def imports_on_load(node):
    """Names imported when the module is: not inside functions, not for type checkers only."""
    names = set(imported(node))
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        names |= imports_on_load(child)
    return names


def components_in(names):
    """Rows of the table among imported names; ``from stapes import __version__`` is none."""
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "stapes" and len(p) > 1} & set(MODULES.values())


def packages_of(*extras):
    """Import names of what the base install and the given extras bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in wanted}
    return {module for name in names for module in IMPORT_NAMES.get(name, [name])}


def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_length(function):
    """Lines of a function below its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_the_table_lists_every_module_and_no_other():
    assert set(documented()) == set(MODULES.values())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_only_upward(path):
    order = list(documented())
    place = order.index(MODULES[path])
    below = components_in(all_imports(TREES[path])) - set(order[: place + 1])
    assert not below, f"{path.name} imports {sorted(below)}, which stand below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_load_only_what_their_extra_brings(path):
    needs = documented()
    extra = needs[MODULES[path]]
    names = imports_on_load(TREES[path])
    outside = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"stapes"}
    brought = packages_of(*([] if extra == "base" else [extra]))
    assert outside <= brought, f"{path.name} needs {sorted(outside - brought)} when imported"
    other = {name for name in components_in(names) if needs[name] not in ("base", extra)}
    assert not other, f"{path.name} ({extra}) imports {sorted(other)} when imported"


def test_what_a_base_install_lacks_is_told_with_what_to_install():
    outside = {name.split(".")[0] for tree in TREES.values() for name in all_imports(tree)}
    lacking = outside - sys.stdlib_module_names - packages_of() - {"stapes"}
    assert lacking == EXTRA_OF.keys()
    for name, extra in EXTRA_OF.items():
        assert name in packages_of(extra)


def test_the_command_line_loads_without_any_heavy_package():
    heavy = packages_of("train", "torch", "fetch") - packages_of() | {"scipy"}
    program = f"import sys, stapes.cli; print(*sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


@pytest.mark.parametrize("path", TREES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_and_files_are_short(path):
    n_lines = path.read_text().count("\n")
    assert n_lines <= LONGEST_FILE
    long = {f.name: body_length(f) for f in functions(TREES[path])}
    assert not {name: n for name, n in long.items() if n > LONGEST_FUNCTION}


def test_the_median_function_is_short():
    lengths = [body_length(f) for tree in TREES.values() for f in functions(tree)]
    assert statistics.median(lengths) < LONGEST_MEDIAN


def test_tests_and_benchmarks_are_of_bearable_length():
    paths = [path for name in ("tests", "benchmarks") for path in python_files(ROOT / name)]
    assert not {path.name: n for path in paths if (n := len(path.read_text().splitlines())) > 600}
