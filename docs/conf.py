"""Sphinx: the documentation site, from these pages and the docstrings. `make docs` builds it, warnings being errors."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import qstore_core

HERE = Path(__file__).parent
shutil.copytree(HERE.parent / "examples" / "notebooks", HERE / "notebooks", dirs_exist_ok=True)

project = "qstore"
author = "the qstore developers"
project_copyright = f"2026, {author}"
release = version = qstore_core.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_site"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are executed by the tests, and kept with what they printed
suppress_warnings = ["myst.header"]  # generated tables of the performance page have titles of their own level
default_role = "literal"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shapes", ("Source", "notes")]

html_theme = "furo"
html_theme_options = {"light_css_variables": {"code-font-size": "var(--font-size--small--3)"}}  # 96 characters a line
html_title = "qstore"
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _files_outside_the_site(app: Any, page: str, source: list[str]) -> None:
    """Links to files of the repository become their paths: the site does not hold them."""
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", r"\1 (`\2`)", source[0])


def _kets(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """`|0⟩` is a ket and `|c|` a magnitude, and no substitution of reStructuredText."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
        lines[number] = "`".join(parts)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _files_outside_the_site)
    app.connect("autodoc-process-docstring", _kets)
