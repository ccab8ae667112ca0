"""Backends by name: real entry points, of small distributions written to a folder on the path.

Every case runs in a fresh interpreter, so that nothing an earlier one imported or registered can help it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from qstore_core.backends.contract import Capabilities, check_options, contract_problems, hookimpl
from qstore_core.backends.registry import get_backend, list_backends, register_backend, unregister_backend
from qstore_core.errors import OptionError, PluginError, SpecError, UnknownBackendError

BACKEND = """
    from qstore_core import Capabilities, hookimpl
    class Mine:
        name = "mine"
        capabilities = Capabilities()
        def __init__(self, **options): self.options = options
        def compile(self, circuit, measurement, *, dtype="float32", shots=None): ...
"""
GOOD = f"""{BACKEND}
    @hookimpl
    def qstore_backend(options):
        return Mine(**options)
"""


def hook(body, signature="qstore_backend(options)", before=""):
    """A plugin module with this hook."""
    return f"{BACKEND}\n    {before}\n    @hookimpl\n    def {signature}:\n        {body}"


class Site:
    """A folder as pip would fill it."""

    def __init__(self, folder):
        self.folder = folder

    def install(self, distribution, entries, modules=None, *, version="1.0", requires=()):
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        points = "\n".join(f"{name} = {module}" for name, module in entries.items())
        (info / "entry_points.txt").write_text(f"[qstore.backends]\n{points}\n")
        for name, source in (modules or {}).items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(source))

    def run(self, code, **environment):
        """Run code in a fresh interpreter; what it puts in `out` comes back."""
        program = "\n".join(
            [
                "import json, sys",
                "from qstore_core import *",
                "from qstore_core import errors",
                "out = {}",
                "def attempt(*args, **options):",
                "    try:",
                "        return type(get_backend(*args, **options)).__name__",
                "    except errors.QstoreError as error:",
                "        return f'{type(error).__name__}: {error}'",
                textwrap.dedent(code),
                "print(json.dumps(out))",
            ]
        )
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.folder), *filter(None, sys.path)]), **environment}
        env.pop("PYTHONWARNINGS", None)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=env,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


# ---- listing


def test_listing_imports_no_plugin(site):
    site.install("qstore-mine", {"mine": "mine_plugin"}, {"mine_plugin": "raise SystemExit('imported!')"})
    out = site.run("""
        infos = {info.name: info for info in list_backends()}
        out["mine"] = [infos["mine"].distribution, infos["mine"].version, infos["mine"].module, infos["mine"].status]
        out["own"] = infos["statevector"].distribution
        out["imported"] = [m for m in ("mine_plugin", "torch", "tensorflow", "numba") if m in sys.modules]
    """)
    assert out == {"mine": ["qstore-mine", "1.0", "mine_plugin", "installed"], "own": "qstore", "imported": []}


def test_the_list_is_frozen_sorted_and_prints_as_a_table(site):
    site.install("qstore-mine", {"mine": "mine_plugin"}, {"mine_plugin": GOOD})
    out = site.run("""
        backends = list_backends()
        out["names"] = [info.name for info in backends]
        out["frozen"] = isinstance(backends, tuple) and hash(backends) is not None
        out["table"] = str(backends)
        get_backend("mine")
        out["after"] = [info.status for info in list_backends() if info.name == "mine"]
        out["before"] = [info.status for info in backends if info.name == "mine"]
    """)
    assert out["names"] == sorted(out["names"])
    assert out["frozen"]
    header, *rows = out["table"].splitlines()
    assert header.split() == ["name", "status", "from", "module"]
    assert ["mine", "installed", "qstore-mine", "1.0", "mine_plugin"] in [row.split() for row in rows]
    assert (out["before"], out["after"]) == (["installed"], ["ready"])


# ---- loading


def test_one_plugin_is_loaded_and_no_other(site):
    site.install("qstore-mine", {"mine": "mine_plugin"}, {"mine_plugin": GOOD})
    site.install("qstore-other", {"other": "other_plugin"}, {"other_plugin": "raise SystemExit('imported!')"})
    out = site.run("""
        out["backend"] = attempt("mine")
        out["imported"] = [m for m in ("other_plugin", "torch", "tensorflow", "numba") if m in sys.modules]
    """)
    assert out == {"backend": "Mine", "imported": []}


def test_ours_come_through_the_same_door(site):
    assert site.run('out["name"] = get_backend("statevector").name') == {"name": "statevector"}


def test_a_device_after_the_colon_is_an_option(site):
    site.install("qstore-mine", {"mine": "mine_plugin", "a:b": "mine_plugin"}, {"mine_plugin": GOOD})
    out = site.run("""
        out["device"] = get_backend("mine:lightning.qubit").options
        out["more"] = get_backend("mine:a:b", wires=3).options
        out["exact"] = get_backend("a:b").options
        out["twice"] = attempt("mine:a", device="b")
        out["own"] = attempt("statevector:fast")
    """)
    assert out["device"] == {"device": "lightning.qubit"}
    assert out["more"] == {"device": "a:b", "wires": 3}
    assert out["exact"] == {}
    assert out["twice"].startswith("OptionError: backend 'mine:a' names a device")
    assert out["own"].startswith("OptionError")


def test_plain_options_share_a_backend_and_objects_do_not(site):
    site.install("qstore-mine", {"mine": "mine_plugin"}, {"mine_plugin": GOOD})
    out = site.run("""
        thing = object()
        out["same"] = get_backend("mine", a=1, b="x") is get_backend("mine", b="x", a=1)
        out["device"] = get_backend("mine:x") is get_backend("mine", device="x")
        out["other"] = get_backend("mine", a=1) is not get_backend("mine", a=2)
        out["type"] = get_backend("mine", a=1) is not get_backend("mine", a=True)
        out["object"] = get_backend("mine", a=thing) is not get_backend("mine", a=thing)
    """)
    assert all(out.values()), out


def test_a_plugin_cannot_change_the_callers_options(site):
    site.install(
        "qstore-mine",
        {"mine": "mine_plugin"},
        {"mine_plugin": hook("return Mine(**dict([options.popitem()]))")},
    )
    out = site.run("""
        given = {"a": 1}
        get_backend("mine", **given)
        out["given"] = given
    """)
    assert out == {"given": {"a": 1}}


def test_an_unknown_name_has_the_nearest_match(site):
    out = site.run("""
        out["near"] = attempt("statevectr")
        out["device"] = attempt("statevectr:x")
        out["far"] = attempt("zzz")
    """)
    assert out["near"].startswith("UnknownBackendError: no backend named 'statevectr'. Installed: ")
    assert out["near"].endswith("Did you mean 'statevector'?")
    assert out["device"].endswith("Did you mean 'statevector'?")
    assert "Did you mean" not in out["far"]


def test_a_package_installed_while_the_process_runs_is_found(site):
    site.folder.mkdir()
    site.install("qstore-other", {"other": "other_plugin"})
    out = site.run("""
        import os, pathlib, time
        out["before"] = attempt("mine")
        folder = pathlib.Path(os.environ["PYTHONPATH"].split(os.pathsep)[0])
        info = folder / "late-1.0.dist-info"
        time.sleep(0.02)
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: late\\nVersion: 1.0\\n")
        (info / "entry_points.txt").write_text("[qstore.backends]\\nmine = qstore_core.engines.statevector\\n")
        out["after"] = get_backend("mine").name
    """)
    assert out["before"].startswith("UnknownBackendError")
    assert out["after"] == "statevector"


def test_one_module_under_two_names(site):
    site.install("qstore-mine", {"mine": "mine_plugin", "alias": "mine_plugin"}, {"mine_plugin": GOOD})
    out = site.run('out["both"] = [attempt("mine"), attempt("alias")]')
    assert out["both"] == ["Mine", "Mine"]


def test_many_threads_load_one_backend_at_once(site):
    site.install(
        "qstore-mine",
        {"mine": "mine_plugin"},
        {"mine_plugin": "import time; time.sleep(0.1)\n" + textwrap.dedent(GOOD)},
    )
    out = site.run("""
        import concurrent.futures
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            backends = set(pool.map(lambda i: get_backend("mine"), range(16)))
        out["different"] = len(backends)
    """)
    assert out == {"different": 1}


# ---- what may be wrong with a plugin: reported when it is asked for, and the others still work


def broken(site, source, *, name="mine", **kwargs):
    site.install("qstore-mine", {name: "mine_plugin"}, {"mine_plugin": source}, **kwargs)
    out = site.run("""
        out["error"] = attempt("mine")
        out["again"] = attempt("mine")
        out["status"] = [[info.status, info.reason] for info in list_backends() if info.name == "mine"][0]
        out["others"] = attempt("statevector")
    """)
    assert out["others"] == "StatevectorBackend"
    assert out["again"] == out["error"]
    kind, _, message = out["error"].partition(": ")
    assert out["status"][1], "list_backends() shows no reason"
    return kind, message, out["status"][0]


def test_missing_library(site):
    kind, message, status = broken(site, "import qiskit_ear")
    assert kind == "BackendUnavailableError"
    assert message.startswith("backend 'mine' is registered but cannot be imported: No module named 'qiskit_ear'.")
    assert "pip install --upgrade qstore-mine" in message
    assert status == "unavailable"


def test_missing_library_of_an_extra(site):
    requires = ("numpy>=2", "frobnicate>=2; extra == 'hardware'")
    kind, message, _ = broken(site, "import frobnicate.sub", requires=requires)
    assert kind == "BackendUnavailableError"
    assert message.endswith('Install it with: pip install "qstore-mine[hardware]"')


def test_missing_library_that_the_package_requires(site):
    _, message, _ = broken(site, "import frob_nicate", requires=("Frob.Nicate (>=2)",))
    assert message.endswith("Install it with: pip install Frob.Nicate")


def test_missing_library_inside_the_hook(site):
    source = "from qstore_core import hookimpl\n@hookimpl\ndef qstore_backend(options):\n    import qiskit_ear\n"
    kind, _, status = broken(site, source)
    assert (kind, status) == ("BackendUnavailableError", "unavailable")


@pytest.mark.parametrize(
    ("name", "library", "extra"), [("torch", "torch", "torch"), ("tensorflow", "tensorflow", "tf")]
)
def test_missing_library_of_ours(site, name, library, extra):
    out = site.run(f"""
        sys.modules["{library}"] = None
        out["status"] = [[info.status, info.reason] for info in list_backends() if info.name == "{name}"][0]
        out["error"] = attempt("{name}")
    """)
    command = f'pip install "qstore[{extra}]"'
    assert out["status"] == ["unavailable", f"Install it with: {command}"]
    assert out["error"].startswith(f"BackendUnavailableError: backend '{name}' is registered but cannot be imported: ")
    assert out["error"].endswith(f"Install it with: {command}")


def test_libraries_that_do_not_fit_together(site):
    kind, message, _ = broken(site, "from json import no_such_name")
    assert kind == "BackendUnavailableError"
    assert "pip install --upgrade qstore-mine" in message


def test_module_that_does_not_exist(site):
    site.install("qstore-mine", {"mine": "no_such_plugin"})
    out = site.run("""
        out["status"] = [[i.status, i.reason] for i in list_backends() if i.name == "mine"][0]
        out["error"] = attempt("mine")
        out["others"] = attempt("statevector")
    """)
    assert out["status"] == ["broken", "its module 'no_such_plugin' does not exist"]
    assert out["error"].startswith("PluginError: backend 'mine' (package 'qstore-mine' 1.0) failed to start")
    assert out["others"] == "StatevectorBackend"


@pytest.mark.parametrize("source", ["def broken(:", "1 / 0", f"{GOOD}\n    raise RuntimeError('at import')"])
def test_exception_at_import(site, source):
    kind, message, status = broken(site, source)
    assert (kind, status) == ("PluginError", "broken")
    assert "package 'qstore-mine' 1.0" in message


def test_exception_in_the_hook(site):
    source = hook("raise KeyError('inside')")
    kind, message, status = broken(site, source)
    assert (kind, status) == ("PluginError", "broken")
    assert "KeyError: 'inside'" in message


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1", "no hook implementation qstore_backend(options). It has no hook at all"),
        (f"{BACKEND}\n    def qstore_backend(options):\n        return Mine()", "is @hookimpl missing?"),
        (hook("return Mine()", "qstore_backends(options)"), "misspelt?"),
        (
            hook("return Mine()", "qstore_backend(wishes)"),
            "does not fit qstore_backend",
        ),
        (hook("return None"), "its hook returned None"),
        (hook("return Mine"), "class, not an instance"),
        (hook("return 3"), "no name; no capabilities"),
        (
            hook("return Mine()", before="Mine.capabilities = {}"),
            "capabilities is dict",
        ),
        (f"{GOOD}\n    QSTORE_CONTRACT = 3", "contract version 3, this qstore has version 2. Upgrade qstore."),
        (f"{GOOD}\n    QSTORE_CONTRACT = 0", "Upgrade the plugin."),
    ],
)
def test_broken_contract(site, source, says):
    kind, message, status = broken(site, source)
    assert (kind, status) == ("PluginError", "broken")
    assert says in message
    assert "qstore-mine" in message


def test_a_plugin_that_was_mended_works_without_a_restart(site):
    source = f"import os\nif os.environ.get('BROKEN'): raise RuntimeError('not yet')\n{textwrap.dedent(GOOD)}"
    site.install("qstore-mine", {"mine": "mine_plugin"}, {"mine_plugin": source})
    out = site.run(
        """
        import os
        out["before"] = attempt("mine")
        del os.environ["BROKEN"]
        out["after"] = attempt("mine")
        out["status"] = [info.status for info in list_backends() if info.name == "mine"]
        """,
        BROKEN="1",
    )
    assert out["before"].startswith("PluginError")
    assert (out["after"], out["status"]) == ("Mine", ["ready"])


def test_two_packages_with_one_name_are_refused_and_both_named(site):
    site.install("qstore-mine", {"mine": "mine_plugin"}, {"mine_plugin": GOOD})
    site.install("qstore-yours", {"mine": "yours_plugin", "yours": "yours_plugin"}, {"yours_plugin": GOOD})
    code = """
        out["error"] = attempt("mine")
        out["yours"] = attempt("yours")
        out["status"] = [info.status for info in list_backends() if info.name == "mine"]
    """
    out = site.run(code)
    assert out["error"].startswith("PluginError: ")
    assert "'qstore-mine' and 'qstore-yours' both provide 'mine'" in out["error"]
    assert out["yours"] == "Mine"
    assert out["status"] == ["duplicate", "duplicate"]
    out = site.run(code, QSTORE_DISABLE_PLUGINS="qstore_yours")
    assert out["error"] == "Mine"
    assert out["yours"].startswith("BackendUnavailableError")


def test_the_name_of_one_of_ours_is_not_taken_in_silence(site):
    site.install("qstore-mine", {"statevector": "mine_plugin"}, {"mine_plugin": GOOD})
    out = site.run('out["error"] = attempt("statevector")')
    assert "'qstore' and 'qstore-mine' both provide 'statevector'" in out["error"]
    assert "QSTORE_DISABLE_PLUGINS=qstore-mine" in out["error"]
    out = site.run('out["error"] = attempt("statevector")', QSTORE_DISABLE_PLUGINS="1")
    assert out["error"] == "StatevectorBackend"


# ---- the off switch


@pytest.mark.parametrize(
    ("value", "mine", "other"),
    [
        ("1", False, False),
        ("all", False, False),
        ("mine", False, True),
        ("QSTORE_MINE, x", False, True),
        ("statevector", True, True),
        ("0", True, True),
        ("", True, True),
    ],
)
def test_plugins_of_others_can_be_turned_off(site, value, mine, other):
    site.install("qstore-mine", {"mine": "mine_plugin"}, {"mine_plugin": GOOD})
    site.install("qstore-other", {"other": "other_plugin"}, {"other_plugin": GOOD})
    out = site.run(
        """
        out["mine"], out["other"], out["own"] = attempt("mine"), attempt("other"), attempt("statevector")
        out["status"] = [info.status for info in list_backends() if info.name == "mine"]
        """,
        QSTORE_DISABLE_PLUGINS=value,
    )
    assert out["own"] == "StatevectorBackend"
    for name, on in (("mine", mine), ("other", other)):
        assert out[name] == "Mine" if on else out[name].startswith("BackendUnavailableError: ")
    assert out["status"] == (["ready"] if mine else ["disabled"])
    if not mine:
        assert f"turned off by QSTORE_DISABLE_PLUGINS={value}" in out["mine"]


# ---- in this process


class Local:
    """A backend that only knows how to exist."""

    name = "local"
    capabilities = Capabilities()

    def __init__(self, level=0):
        self.level = level

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        raise NotImplementedError


@pytest.fixture
def registered():
    names = []

    def register(name, backend):
        register_backend(name, backend)
        names.append(name)

    yield register
    for name in names:
        unregister_backend(name)


def test_register_a_class(registered):
    registered("local", Local)
    assert get_backend("local", level=3).level == 3
    info = next(info for info in list_backends() if info.name == "local")
    assert (info.distribution, info.module, info.status) == ("", __name__, "ready")
    with pytest.raises(OptionError, match="unexpected keyword argument 'levle'"):
        get_backend("local", levle=3)


def test_register_an_instance(registered):
    backend = Local()
    registered("local", backend)
    assert get_backend("local") is backend
    with pytest.raises(OptionError):
        get_backend("local", level=3)


def test_register_an_object_with_a_hook(registered):
    class Plugin:
        @hookimpl
        def qstore_backend(self, options):
            return Local(**options)

    registered("local", Plugin())
    assert get_backend("local", level=2).level == 2


def test_register_one_object_twice(registered):
    class Plugin:
        @hookimpl
        def qstore_backend(self, options):
            return Local(**options)

    plugin = Plugin()
    registered("local", plugin)
    register_backend("local2", plugin)
    unregister_backend("local2")
    assert get_backend("local").level == 0


def test_a_hook_without_options_refuses_them(registered):
    class Plugin:
        @hookimpl
        def qstore_backend(self):
            return Local()

    registered("local", Plugin())
    assert get_backend("local").name == "local"
    with pytest.raises(OptionError, match="takes no options, received level"):
        get_backend("local", level=1)


@pytest.mark.parametrize("taken", ["local", "statevector"])
def test_a_taken_name_is_refused(registered, taken):
    registered("local", Local)
    with pytest.raises(PluginError, match=r"exists already, from (this process|qstore)"):
        register_backend(taken, Local)


@pytest.mark.parametrize("name", ["auto", "a:b", "", "a b", "1a"])
def test_a_name_that_cannot_be_asked_for_is_refused(name):
    with pytest.raises(SpecError, match="a backend's name"):
        register_backend(name, Local)


def test_something_that_is_no_backend_is_refused():
    with pytest.raises(PluginError, match="expected a module"):
        register_backend("local", 3)
    assert "local" not in [info.name for info in list_backends()]


def test_unregistering():
    register_backend("local", Local)
    get_backend("local")
    unregister_backend("local")
    with pytest.raises(UnknownBackendError):
        get_backend("local")
    with pytest.raises(UnknownBackendError):
        unregister_backend("local")
    register_backend("local", Local)  # the name is free again, and the new one starts fresh
    assert next(info.status for info in list_backends() if info.name == "local") == "installed"
    unregister_backend("local")


# ---- a backend instead of a name


def test_a_backend_is_returned_unchanged():
    backend = Local()
    assert get_backend(backend) is backend
    with pytest.raises(OptionError, match="exists already"):
        get_backend(backend, level=1)


@pytest.mark.parametrize("thing", [3, None, Local, object()])
def test_neither_a_name_nor_a_backend(thing):
    with pytest.raises(SpecError, match="must be a name or a Backend"):
        get_backend(thing)


# ---- helpers for plugin authors


def test_contract_problems():
    assert contract_problems(Local()) == []
    assert contract_problems(Local) == ["it is a class, not an instance"]


def test_check_options():
    check_options({"level": 1}, ("level",), backend="local")
    with pytest.raises(OptionError, match=r"has no option 'levle'. Options: level. Did you mean 'level'\?") as caught:
        check_options({"levle": 1}, ("level",), backend="local")
    assert (caught.value.argument, caught.value.backend) == ("levle", "local")
    with pytest.raises(OptionError, match="It has none"):
        check_options({"x": 1}, backend="local")


@pytest.mark.parametrize(("name", "library", "said"), [("jax", "jax", "qstore[jax]"), ("triton", "triton", "CUDA")])
def test_what_a_backend_of_ours_lacks_is_said_in_the_list(name, library, said, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    [info] = [info for info in list_backends() if info.name == name]
    assert (info.status, said in info.reason) == ("unavailable", True)
