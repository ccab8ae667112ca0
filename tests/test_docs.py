"""Every Python snippet of the README runs, in order, as a reader would type it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_readme_snippet(number):
    code = compile(SNIPPETS[number], f"README.md, Python snippet {number + 1}", "exec")
    exec(code, {"__name__": "snippet"})


def test_the_readme_begins_with_the_two_commands():
    commands = [line.split("#")[0].strip() for line in README.split("```sh\n")[1].split("```")[0].splitlines()]
    assert commands == ["make demo", "make test"]
    assert README.index("```sh") < 50


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md"])
def test_links_to_files_of_the_repository_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
