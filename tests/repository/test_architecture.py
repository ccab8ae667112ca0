"""The rules of docs/architecture.md, executed: who may import whom, and what is public."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qstore_core.errors import missing_framework

ROOT = Path(__file__).parents[2]
CORE = ROOT / "qstore_core"
OUTSIDE = [
    ROOT / "qstore_torch",
    ROOT / "qstore_tf",
    ROOT / "qstore_jax",
    ROOT / "qstore_sklearn",
    ROOT / "plugins" / "qstore_plugins",
]
OUTSIDE_FILES = [path for folder in OUTSIDE for path in sorted(folder.rglob("*.py"))]
PUBLIC = [  # and packages that are a module with private ones beside it
    path
    for path in (*sorted(CORE.rglob("*.py")), *OUTSIDE_FILES)
    if not re.search(r"/_(?!_init__)", path.as_posix().removeprefix(ROOT.as_posix()))
    and path != CORE / "__init__.py"
    and (path.stem != "__init__" or re.search("^(class|def) ", path.read_text(encoding="utf-8"), re.MULTILINE))
]
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "numba", "llvmlite", "scipy", "qiskit", "pennylane"}


def modules_in_order():
    """The names in the first column of the module table of docs/architecture.md, top to bottom."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Modules of `qstore_core`")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name.rstrip("/") for cell in cells for name in re.findall(r"`([\w/]+)`", cell)]


def module_name(path):
    """`a.b` for a/b.py and for a/b/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "plugins" else parts).removesuffix(".__init__")


def imports(path):
    """Every import of a file: absolute `(module, name or None, line, whether inside a function)`."""
    own = module_name(path).split(".")
    package = own if path.name == "__init__.py" else own[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, node.lineno, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                yield module, alias.name, node.lineno, id(node) in inside


def in_table(module, order):
    """The entry of the table that holds a module of the core: `engines` for all of its modules."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (entry := "/".join(parts[:length])) in order:
            return entry
    return None


def core_imports(path):
    """Core modules that a file imports, as `(dotted name below qstore_core, line)`; "" for the package itself."""
    for module, name, line, _ in imports(path):
        parts = module.split(".")
        if parts[0] != "qstore_core":
            continue
        if name is not None and (
            CORE.joinpath(*parts[1:], f"{name}.py").exists() or CORE.joinpath(*parts[1:], name).is_dir()
        ):
            parts.append(name)
        yield ".".join(parts[1:]), line


def targets(node):
    """Names that an assignment binds."""
    found = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in found if isinstance(target, ast.Name)]


# ---- what importing costs


def test_core_imports_no_framework():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "importtime", "-c", "import qstore_core"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "qstore_core" in imported
    assert not imported & FRAMEWORKS


def test_importing_the_core_imports_little():
    """What takes long comes when it is needed: the runner's asyncio, package metadata, random numbers."""
    code = "import sys, numpy; before = set(sys.modules); import qstore_core; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = set(done.stdout.split())
    late = {"asyncio", "concurrent.futures", "email", "hashlib", "importlib.metadata", "logging", "numpy.random"}
    assert not imported & {*late, "ssl", "zipfile"}
    later = ("analysis", "cli", "engines", "interchange", "layers", "pictures", "runtime", "testing")
    assert not [name for name in imported if name.startswith(tuple(f"qstore_core.{part}" for part in later))]
    assert len([name for name in imported if not name.startswith("qstore_core")]) < 100


@pytest.mark.parametrize(
    ("package", "missing", "extra"),
    [
        ("qstore_torch", "torch", "torch"),
        ("qstore_tf", "keras", "tf"),
        ("qstore_jax", "jax", "jax"),
        ("qstore_sklearn", "sklearn", "sklearn"),
    ],
)
def test_a_package_without_its_framework_says_how_it_is_installed(package, missing, extra):
    code = f"import sys; sys.modules[{missing!r}] = None; import {package}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"qstore_core.errors.BackendUnavailableError: {package} cannot be imported: ")
    assert last.endswith(f'Install it with: pip install "qstore[{extra}]"')


def test_a_framework_that_keras_runs_on_is_named_where_it_is_missing():
    error = missing_framework("qstore_tf", "tf", ModuleNotFoundError("No module named 'jax'", name="jax"))
    assert isinstance(error, ImportError)
    assert str(error).endswith('pip install "qstore[jax]"')


@pytest.mark.parametrize("adapter", ["qstore_torch", "qstore_tf", "qstore_jax"])
def test_an_adapter_imports_no_other_framework(adapter):
    own = {"qstore_torch": {"torch"}, "qstore_tf": {"tensorflow", "keras"}, "qstore_jax": {"jax"}}[adapter]
    keras_on = {"on_torch.py": {"torch"}, "on_jax.py": {"jax"}}  # imported where Keras computes with it
    for path in (ROOT / adapter).rglob("*.py"):
        foreign = {"torch", "tensorflow", "keras", "jax"} - keras_on.get(path.name, own)
        assert not {module.partition(".")[0] for module, *_ in imports(path)} & foreign, path


@pytest.mark.slow
def test_a_plain_install_needs_numpy_and_pluggy_only(tmp_path):
    """In a new environment: what pip brings, what can be imported, and a layer that computes."""
    code = """
import importlib.metadata
import numpy as np, qstore_core, qstore_plugins
names = {d.name.lower() for d in importlib.metadata.distributions()}
assert names <= {"numpy", "pluggy", "qstore", "pip", "setuptools"}, names
assert np.shape(qstore_core.QuantumFeatureExtractor(4, seed=0)(np.ones((3, 16), np.float32))) == (3, 4)
status = {info.name: info.status for info in qstore_core.list_backends()}
assert (status["statevector"], status["torch"], status["tensorflow"]) == ("ready", "unavailable", "unavailable"), status
"""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONWARNINGS")}

    def run(*command):
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr

    source = tmp_path / "source"  # a build in the working tree would leave build/ behind
    ignore = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "docs", "tests", "examples", "runs")
    shutil.copytree(ROOT, source, ignore=ignore)
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", source)
    run(python, "-W", "error", "-c", code)


# ---- who may import whom


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_each_core_module_imports_only_from_modules_before_it(path):
    order = modules_in_order()
    name = module_name(path).partition(".")[2]
    if path.name == "__init__.py" and in_table(name, order) is None:
        return  # a package that only holds modules
    here = in_table(name, order)
    assert here is not None, f"{name} is missing from the table in docs/architecture.md"
    for module, line in core_imports(path):
        where = f"{path.relative_to(ROOT)}:{line}"
        assert module, f"{where}: import from the module, not from the package that imports this one"
        entry = in_table(module, order)
        assert entry is not None, f"{where}: {module} is missing from the table in docs/architecture.md"
        assert order.index(entry) <= order.index(here), f"{where}: {here} comes before {entry}"


def test_the_table_lists_no_module_that_does_not_exist():
    for module in modules_in_order():
        assert (CORE / f"{module}.py").exists() or (CORE / module).is_dir(), module


@pytest.mark.parametrize("path", OUTSIDE_FILES, ids=module_name)
def test_adapters_and_plugins_import_only_what_the_core_exports(path):
    for module, name, line, _ in imports(path):
        if module.partition(".")[0] != "qstore_core":
            continue
        where = f"{path.relative_to(ROOT)}:{line}"
        private = [part for part in (*module.split("."), name or "") if part.startswith("_")]
        assert not private, f"{where}: {module}.{name} is private"
        if name is None or (ROOT / f"{module}.{name}".replace(".", "/")).with_suffix(".py").exists():
            continue  # a module
        if (ROOT / f"{module}.{name}".replace(".", "/")).is_dir():
            continue  # a package
        assert name in importlib.import_module(module).__all__, f"{where}: {module} does not export {name}"


@pytest.mark.parametrize("path", OUTSIDE_FILES, ids=module_name)
def test_adapters_and_plugins_touch_no_private_attribute_of_the_core(path):
    """`core_module._name` and `CoreClass._name`, through any name that the file imported from the core."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    of_core = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qstore_core") and not node.level
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in of_core:
            private = re.match(r"_(?!_|keras)", node.attr)  # `_keras…` are marks that Keras puts on strangers' classes
            assert not private, f"{path}:{node.lineno}: {node.value.id}.{node.attr}"


@pytest.mark.parametrize(
    ("adapter", "more"),
    [
        # Calls; a registered operator, which torch.compile does not look into; an optimizer.
        ("qstore_torch", {"call", "graph", "natural"}),
        # What Keras computes with; which kind of graph is being made, from TensorFlow's inside; an optimizer.
        ("qstore_tf", {"natural", "on_jax", "on_tensorflow", "on_torch", "situation", "stack"}),
        ("qstore_jax", {"call", "modules"}),  # the same layers as modules of flax and equinox
    ],
)
def test_the_adapters_have_the_same_files(adapter, more):
    """So that a diff of the two is a review."""
    files = {path.stem for path in (ROOT / adapter).glob("*.py")}
    assert files - more == {"__init__", "engine", "host", "initial", "layers", "tensor"}


# ---- what is public


def kind_and_name(name):
    """Constants, then classes, then functions, as ruff sorts `__all__`."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


@pytest.mark.parametrize("path", PUBLIC, ids=module_name)
def test_all_is_sorted_and_complete(path):
    """Every public class and function that a module defines is in its `__all__`, and what is in it exists."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assignments = [node for node in tree.body if isinstance(node, ast.Assign) and targets(node) == ["__all__"]]
    assert assignments, "no __all__"
    exported = ast.literal_eval(assignments[0].value)
    assert exported == sorted(set(exported), key=kind_and_name)
    defined, bound = set(), set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            bound.update(targets(node))
        elif isinstance(node, ast.ImportFrom):
            bound.update(alias.asname or alias.name for alias in node.names)
    assert not set(exported) - defined - bound
    hooks = {"qstore_backend"}  # called through pluggy, by nobody's import
    assert not {name for name in defined if not name.startswith("_")} - set(exported) - hooks


@pytest.mark.parametrize("package", ["qstore_core", "qstore_torch", "qstore_tf", "qstore_jax"])
def test_a_package_exports_what_it_imports(package):
    module = importlib.import_module(package)
    assert module.__all__ == sorted(set(module.__all__), key=kind_and_name)
    assert all(hasattr(module, name) for name in module.__all__)
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    found = [alias.asname or alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names]
    assert not {name for name in found if not name.startswith("_") and name != "annotations"} - set(module.__all__)


def test_what_comes_later_is_as_public_as_the_rest():
    """`dir`, `import *` and types have the names that are imported when they are asked for."""
    core = importlib.import_module("qstore_core")
    assert set(core.__all__) <= set(dir(core))
    everything: dict[str, object] = {}
    exec("from qstore_core import *", everything)
    assert set(core.__all__) <= set(everything)
    with pytest.raises(AttributeError, match="no attribute 'QuantumLayr'"):
        core.QuantumLayr  # noqa: B018


@pytest.mark.parametrize("adapter", ["qstore_torch", "qstore_tf", "qstore_jax"])
def test_an_adapter_exports_the_layers_of_the_core(adapter):
    core = importlib.import_module("qstore_core")
    layers = {name for name in core.__all__ if name.startswith("Quantum")} - {"QuantumKernel"}
    assert layers <= set(importlib.import_module(adapter).__all__)


def test_the_version_has_one_source():
    """The package's metadata and the citation say what `qstore_core.__version__` says."""
    version = importlib.import_module("qstore_core").__version__
    assert importlib.metadata.version("qstore") == version
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == version


def test_modules_are_small():
    """About 400 lines: one that outgrows it is probably two."""
    sizes = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PUBLIC}
    assert not {name: size for name, size in sizes.items() if size > 500}


def test_folders_are_small():
    """At most twelve names at any level, so that a reader sees where a line belongs."""
    others = [path for name in ("benchmarks", "examples") for path in (ROOT / name).rglob("*.py")]
    for folder in {path.parent for path in (*CORE.rglob("*.py"), *OUTSIDE_FILES, *others)}:
        names = {path.name for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        assert len(names - {"__init__.py", "__main__.py"}) <= 12, folder


def test_the_walks_name_what_there_is():
    """Files, modules and names in "One batch through …" exist."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walk = text.split("### One batch through PyTorch")[1].split("\n## ")[0]
    assert all((ROOT / name).exists() for name in re.findall(r"`(qstore_\w+/[\w/]+\.py)`", walk))
    modules = re.findall(r"`((?:backends|circuit|engines|runtime)/[\w/]+)`", walk)
    assert all((CORE / f"{name}.py").exists() or (CORE / name).is_dir() for name in modules)
    sources = "".join(path.read_text(encoding="utf-8") for path in [*CORE.rglob("*.py"), *OUTSIDE_FILES])
    names = {part for name in re.findall(r"`([A-Za-z_.]+)`", walk) for part in name.split(".")}
    assert not {name for name in names if not re.search(rf"\b{name}\b", sources)}
