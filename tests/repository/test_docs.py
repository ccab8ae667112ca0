"""Every Python snippet of the README and of the documentation runs, as a reader would type it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FRAGMENTS = {  # their snippets leave out what the reader writes
    "docs/architecture.md",
    "docs/plugins.md",
}


def snippets(page):
    return PYTHON.findall((ROOT / page).read_text(encoding="utf-8"))


# Saving a model, Keras turns variables into arrays in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if page not in FRAGMENTS and snippets(page)])
def test_the_snippets_of_a_page_run_as_a_reader_would_type_them(page, tmp_path, monkeypatch):
    """From top to bottom, in one session, in a folder of the reader's."""
    monkeypatch.chdir(tmp_path)
    texts = snippets(page)
    if any("register_" in text for text in texts):  # what is registered stays: in a process of its own
        (tmp_path / "snippet.py").write_text("\n".join(texts), encoding="utf-8")
        subprocess.run([sys.executable, "-W", "error", "-c", "import snippet"], check=True)
        return
    namespace = {"__name__": "snippet"}
    for number, text in enumerate(texts, 1):
        exec(compile(text, f"{page}, Python snippet {number}", "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("page", sorted(FRAGMENTS))
def test_fragments_are_python_and_import_what_there_is(page):
    for text in snippets(page):
        tree = ast.parse(text, f"a snippet of {page}")
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), f"imports of a snippet of {page}", "exec"), {})


def test_the_readme_begins_with_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line.split("#")[0].strip() for line in readme.split("```sh\n")[1].split("```")[0].splitlines()]
    assert commands == ["make demo", "make test"]
    assert readme.index("```sh") < 50


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_of_the_repository_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
