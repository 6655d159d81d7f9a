"""Settings of the documentation: `make docs` builds it into build/docs.

Pages are Markdown. The API reference is made from the docstrings, one page a module, when a build
begins; docs/api holds nothing else and is not kept in git.
"""

import ast
import inspect
import os
import re
import sys
from pathlib import Path

from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # modules are imported, nothing is computed

project = "realdex_jax"
copyright = "the authors of realdex_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True
# Types of other packages have no pages here; what a page itself refers to is checked.
nitpick_ignore_regex = [("py:(class|exc|obj|data|func|meth|attr|mod)", ".*")]

myst_heading_anchors = 4
smartquotes = False  # two hyphens begin an option
highlight_language = "none"

html_theme = "furo"
html_title = "realdex_jax"
html_copy_source = False
html_show_sphinx = False

default_role = "code"
autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
napoleon_use_rtype = False
add_module_names = False

PACKAGES = {
    "realdex_jax": "pure JAX: hand, geometry, data, models, losses, refinement, training, metrics",
    "sim": "physics, objects, grasp synthesis, rendering",
    "capture": "depth cameras: recording, calibration, synchronisation, clouds, tracking",
    "robot": "plans, gate, preflight, executor, ROS 2, the simulated robot",
    "viewer": "the browser app: grasps, motions, recordings, a live robot, uploads",
    "study": "the user study",
}


def setup(app: Sphinx) -> None:
    """Connects what this file adds to Sphinx."""
    app.connect("builder-inited", _write_reference)
    app.connect("builder-inited", _write_pictures)
    app.add_post_transform(_ExactTypes)
    app.connect("autodoc-skip-member", _is_foreign)
    # Before and after napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", _as_restructured, priority=400)
    app.connect("autodoc-process-docstring", _whole_again, priority=600)


class _ExactTypes(SphinxPostTransform):
    """Looks types up by their full names alone.

    Otherwise Sphinx takes any attribute called "bytes" for the type, and looks through all names
    for each, which takes longer than all the rest.
    """

    default_priority = 5  # before references are resolved

    def run(self, **_: object) -> None:
        for node in self.document.findall(pending_xref):
            if not node.get("refspecific", True):
                del node["refspecific"]


def _write_reference(_: Sphinx) -> None:
    """Writes docs/api: a page a module, and one a package that lists them."""
    pages = {}
    for package, about in PACKAGES.items():
        modules = sorted(
            _name(path) for path in (ROOT / package).rglob("*.py") if path.name != "__main__.py"
        )
        pages[f"{package}-index.md"] = (
            f"# {package}\n\n{about[0].upper()}{about[1:]}.\n\n{_summaries(modules)}\n"
        )
        for name in modules:
            # Not in the tree of pages, which every page carries: its package's page lists it.
            pages[f"{name}.md"] = (
                f"---\norphan: true\n---\n\n# {name}\n\n[All of {package}]({package}-index.md)\n\n"
                f"```{{eval-rst}}\n.. automodule:: {name}\n```\n"
            )
    folder = DOCS / "api"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        # Unchanged pages keep their time, so that a second build skips them.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _write_pictures(_: Sphinx) -> None:
    """Writes what docs/view.md includes: the pictures that were taken, or how to take them."""
    folder = DOCS / "api"
    taken = sorted((folder / "pictures").glob("*.png"))
    lines = [f"![The view of: {path.stem}](pictures/{path.name})\n" for path in taken]
    text = "\n".join(lines or ["(`python -m experiments.view_pictures` takes pictures of it.)\n"])
    (folder / "view_pictures.txt").write_text(text, encoding="utf-8")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _summaries(modules: list[str]) -> str:
    lines = ["| module | |", "|---|---|"]
    for name in modules:
        path = ROOT.joinpath(*name.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        first = text.partition("\n")[0].replace("|", "\\|")
        lines.append(f"| [{name}](<{name}.md>) | {first} |")
    return "\n".join(lines)


def _is_foreign(
    _app: Sphinx, _what: str, _name: str, member: object, _skip: bool, _options: object
) -> bool | None:
    """Leaves out what others' decorators pass for ours: functions whose code lies elsewhere.

    The packages' folders decide, not the root: the environment may lie beneath it.
    """
    code = getattr(inspect.unwrap(member) if callable(member) else None, "__code__", None)
    ours = [ROOT / package for package in PACKAGES]
    if code and not any(Path(code.co_filename).is_relative_to(folder) for folder in ours):
        return True
    return None


_NAMED = re.compile(r"^\s*\*{0,2}[\w.]+(?: \([^)]*\))?:")
"""A line of a section that begins with a name: `phi: Poses.`"""


def _as_restructured(
    _app: Sphinx, what: str, name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Docstrings are plain text with Markdown's code: here they become reStructuredText.

    Blocks that are indented after an empty line stay as they are written, and what stands between
    backquotes is code; elsewhere, signs that mean something in reStructuredText are escaped.
    """
    found: list[str] = []
    literal = False
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        indented = line.startswith("    ")
        if not literal and indented and not before.strip() and not _in_section(found):
            literal = True
            found += ["::", ""]
        elif literal and line.strip() and not indented:
            literal = False
        if literal:
            found.append(line)
        else:
            named = _NAMED.match(line)
            head = named[0] if named else ""
            found.append(head + _escaped(line[len(head) :]))
    lines[:] = found
    if what in ("attribute", "data", "property"):
        _ATTRIBUTES[name] = found


_ATTRIBUTES: dict[str, list[str]] = {}
"""Docstrings of attributes by name."""


def _whole_again(
    _app: Sphinx, _what: str, name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Undoes what napoleon makes of attributes: it takes what stands before a colon for a type."""
    if name in _ATTRIBUTES:
        lines[:] = _ATTRIBUTES.pop(name)


def _in_section(before: list[str]) -> bool:
    """Whether the last unindented line names one of napoleon's sections."""
    last = next((line for line in reversed(before) if line and not line.startswith(" ")), "")
    return last in ("Args:", "Returns:", "Raises:", "Yields:", "Example:", "Note:")


def _escaped(text: str) -> str:
    parts = re.split(r"(`+[^`]+`+)", text)
    for place, part in enumerate(parts):
        if place % 2:
            code = part.strip("`")
            # A letter right behind the code would join it.
            joined = parts[place + 1][:1].isalnum()
            parts[place] = f"``{code}``" + ("\\ " if joined else "")
        else:
            parts[place] = re.sub(r"([*|])", r"\\\1", re.sub(r"(\w)_(?!\w)", r"\1\\_", part))
    return "".join(parts)
