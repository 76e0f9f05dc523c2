"""Sphinx: `make docs` builds the pages in build/docs, without a network; warnings are errors."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import pages

import recgym

project = "recgym"
author = copyright = "recgym developers"
version = release = recgym.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["equations", "**/.ipynb_checkpoints", "tutorials/*.py"]
templates_path: list[str] = []
language = "en"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # `make notebooks` executes them, and the tests run the scripts they are made from

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_title = f"recgym {release}"
html_math_renderer = "mathml"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"
linkcheck_timeout = 20

suppress_warnings = ["mystnb.unknown_mime_type"]  # of a progress bar, say: a page leaves it out


# --- equations as MathML: browsers draw it themselves, and no script is fetched ---
def inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def display_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


# --- docstrings: plain prose with Gymnasium's sections, not reStructuredText ---
def as_restructured(app: Sphinx, what: str, name: str, each: Any, options: Any, lines: list[str]) -> None:
    """Make headings of `## Section` and escape what reStructuredText would take for markup."""
    if lines and lines[0].startswith("Alias for field number"):
        lines[:] = [comment_beside(name)]
    adapted: list[str] = []
    for line in lines:
        heading = re.fullmatch(r"(\s*)## (.+)", line)
        if heading:
            adapted += [f"**{heading[2]}**", ""]
            continue
        if re.match(r"\s*\* ", line):  # an item of a list
            start, rest = line.split("* ", 1)
            adapted.append(f"{start}* {escaped(rest)}")
        else:
            adapted.append(line if re.match(r"\s*(:|\.\.)", line) and "*" not in line else escaped(line))
    lines[:] = adapted


def comment_beside(name: str) -> str:
    """What the source says beside a field of a NamedTuple, such as its shape."""
    owner, _, field = name.rpartition(".")
    module, _, kind = owner.rpartition(".")
    source = inspect.getsource(getattr(import_module(module), kind))
    found = re.search(rf"^    {field}: .*?  # (.+)$", source, flags=re.MULTILINE)
    return found[1] if found else ""


def escaped(line: str) -> str:
    """Escape asterisks, bars and trailing underscores outside of `code`, which gets the second pair of backticks."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"(?<!\\)([*|])|(?<=\w)(_)(?!\w)", r"\\\1\2", part) for part in parts[::2]]
    return "".join(f"``{part}``" if number % 2 else part for number, part in enumerate(parts))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    app.connect("autodoc-process-docstring", as_restructured, priority=300)  # before napoleon reads the sections
    app.connect("builder-inited", lambda app: pages.write_pages(Path(app.srcdir)))
    return {"parallel_read_safe": True}
