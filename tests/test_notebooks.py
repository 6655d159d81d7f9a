"""The notebooks: kept without outputs, listed in the documentation, and they run."""

import pathlib
import re

import nbformat
import pytest

from experiments import notebooks
from experiments.notebooks import NotebookError
from realdex_jax.errors import ConfigError

PATHS = notebooks.chosen()
NAMES = [path.stem for path in PATHS]
PAGE = notebooks.ROOT / "docs" / "notebooks.md"


def test_there_are_seven_in_order() -> None:
    assert [name.partition("_")[0] for name in NAMES] == list("1234567")


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_source_is_text_without_outputs(path: pathlib.Path) -> None:
    text = path.read_text(encoding="utf-8")
    source = nbformat.reads(text, as_version=4)
    nbformat.validate(source)
    assert text == nbformat.writes(source) + "\n", "saved in another form"
    assert set(source.metadata) == {"kernelspec", "language_info"}
    assert source.metadata.kernelspec.name == "python3"
    assert dict(source.metadata.language_info) == {"name": "python"}
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count is not None]
    assert sum(notebooks.COVER in cell.metadata.get("tags", ()) for cell in code) == 1


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_every_step_is_told_before_it_is_done(path: pathlib.Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    kinds = [cell.cell_type for cell in cells]
    assert kinds[0] == "markdown"
    assert re.match(rf"# {path.stem[0]}\. [A-Z]", cells[0].source)
    after = [i for i, kind in enumerate(kinds) if kind == "code" and kinds[i - 1] != "markdown"]
    assert not after


@pytest.mark.parametrize("name", NAMES)
def test_the_documentation_lists_it_with_its_picture(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"notebooks/{name}.ipynb" in page
    assert f"](pictures/{name}.png)" in page
    assert (PAGE.parent / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=f"no notebook 8_dreams; there are {NAMES[0]}"):
        notebooks.chosen((NAMES[-1], "8_dreams"))
    assert notebooks.chosen((f"{NAMES[-1]}.ipynb",)) == [PATHS[-1]]


def test_a_cell_that_fails_is_told(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "wrong.ipynb"
    cells = [nbformat.v4.new_code_cell("import realdex_jax"), nbformat.v4.new_code_cell("1 / 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(NotebookError) as told:
        notebooks.execute(path)
    said = str(told.value)
    assert said.startswith("wrong.ipynb: ")
    assert said.index("1 / 0") < said.index("ZeroDivisionError: division by zero")
    assert "\x1b" not in said


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_it_runs_and_shows_pictures_and_a_scene(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = notebooks.execute(path)
    assert notebooks.cover(done, path.name)
    assert len(notebooks.pictures(done)) >= 3
    notebooks.write(done, tmp_path / path.stem)
    page = (tmp_path / f"{path.stem}.html").read_text(encoding="utf-8")
    assert re.search(r'<iframe [^>]*srcdoc="', page)
    around = re.sub(r'srcdoc="[^"]*"', "", page)
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?:https?:)?//', around)
    told = [output.get("text", "") for cell in done.cells for output in cell.get("outputs", ())]
    assert not [text for text in told if re.search(r"\b(?:WARNING|Warning|Traceback)\b", text)]
