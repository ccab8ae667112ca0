"""Every Python snippet of the README runs, as a reader would type it; those of other pages import what exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = PYTHON.findall(README)
PAGES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_readme_snippet(number):
    code = compile(SNIPPETS[number], f"README.md, Python snippet {number + 1}", "exec")
    exec(code, {"__name__": "snippet"})


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_snippets_of_other_pages_are_python_and_import_what_there_is(page):
    """They leave out what a plugin's author writes, so they cannot run; names that they import must exist."""
    for text in PYTHON.findall((ROOT / page).read_text(encoding="utf-8")):
        tree = ast.parse(text, f"a snippet of {page}")
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), f"imports of a snippet of {page}", "exec"), {})


def test_the_readme_begins_with_the_two_commands():
    commands = [line.split("#")[0].strip() for line in README.split("```sh\n")[1].split("```")[0].splitlines()]
    assert commands == ["make demo", "make test"]
    assert README.index("```sh") < 50


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_of_the_repository_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
