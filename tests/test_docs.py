"""What README and docs say: every command can be typed as it stands, every link leads somewhere."""

import ast
import dataclasses
import importlib.util
import pathlib
import re
import runpy
import shlex
import sys
import tomllib
import warnings
from collections.abc import Iterator

import pytest
import tyro
from packages import PACKAGES

from experiments import __main__ as listing
from experiments import commands
from experiments.report_table import insert
from realdex_jax.evaluation import results

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
CHANGELOG = REPOSITORY / "CHANGELOG.md"
CHILDREN = {"sim.decomposition", "benchmarks.store"}
"""Modules that others start as processes; people do not."""
JOBS = listing.jobs()


@dataclasses.dataclass(frozen=True)
class Command:
    """A command as a page or a docstring shows it."""

    where: str
    module: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join((self.module, *self.words))}"


def commands_of(where: str, text: str) -> Iterator[Command]:
    """Every `python -m` of a text: in blocks of code, and in inline code."""
    text = re.sub(r"\\\n\s*", " ", text)
    text = re.sub(r"\n {8,}(?=--)", " ", text)  # examples of docstrings go on further in
    in_block = [
        line
        for line in text.splitlines()
        if re.match(r"(?: {4})?(?:\w+=\S+ |srun )*python -m ", line)
    ]
    inline = re.findall(r"`(python -m [^`]+)`", text)
    for line in (*in_block, *inline):
        _, _, rest = line.partition("python -m ")
        module, *words = shlex.split(rest, comments=True)
        yield Command(where, module, tuple(words))


def rehearses(module: str) -> bool:
    """Whether a job has --dry-run."""
    origin = getattr(importlib.util.find_spec(module), "origin", None)
    return origin is not None and "plan=" in pathlib.Path(origin).read_text(encoding="utf-8")


def shown() -> list[Command]:
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    for job in JOBS:
        texts[job.module] = job.body
    found = (c for where, text in texts.items() for c in commands_of(where, text))
    return list({(c.module, c.words): c for c in found}.values())


SHOWN = shown()


def filled(words: tuple[str, ...], by: str = "1") -> list[str]:
    """Places that a reader fills in get a value, by default a path and a number; dots go."""
    return [by if re.fullmatch(r"[A-Z][A-Z_]*", word) else word for word in words if word != "..."]


class Parsed(BaseException):
    """Stops a program after its command line was read."""


def read_by_its_program(
    module: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> str:
    """Has a program read its command line and stop there; what it complained of, or nothing."""
    cli = tyro.cli

    def stop(*args: object, **settings: object) -> None:
        cli(*args, **settings)  # pyright: ignore[reportCallIssue, reportArgumentType]
        raise Parsed

    monkeypatch.setattr(tyro, "cli", stop)
    monkeypatch.setattr(sys, "argv", [module, *words])
    with warnings.catch_warnings():
        # The module may have been imported before; here it is run anew.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            runpy.run_module(module, run_name="__main__")
        except Parsed:
            return ""
        except SystemExit as ended:
            # --help ends well, too.
            said = capsys.readouterr()
            return "" if ended.code in (0, None) else said.out + said.err
    return "it never read its command line"


def test_commands_are_found_as_they_are_written() -> None:
    text = (
        "Run `python -m a.b --x 1`.\n\n    python -m c.d P  # why\n"
        "```bash\nX=1 python -m e.f 'g h' \\\n    --i\n```\n"
    )
    assert [(c.module, c.words) for c in commands_of("page", text)] == [
        ("c.d", ("P",)),
        ("e.f", ("g h", "--i")),
        ("a.b", ("--x", "1")),
    ]
    assert len(SHOWN) > 100


@pytest.mark.parametrize("module", sorted({c.module for c in SHOWN}))
def test_every_command_of_the_documentation_is_one(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert importlib.util.find_spec(module) is not None, f"no module {module}"
    if module.partition(".")[0] not in PACKAGES:
        return  # pytest and the like
    wrong = {}
    for command in SHOWN:
        if command.module == module:
            complaint = read_by_its_program(module, filled(command.words), monkeypatch, capsys)
            monkeypatch.undo()
            if complaint:
                wrong[str(command)] = complaint
    assert not wrong, "\n".join(f"{name}\n{text}" for name, text in wrong.items())


REHEARSED = sorted(job.module for job in JOBS if rehearses(job.module))


def rehearsed(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Runs a job with --dry-run; its exit status."""
    monkeypatch.setattr(sys, "argv", [module, *words, commands.DRY])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__")
    return ended.value.code


@pytest.mark.parametrize("module", REHEARSED)
def test_every_command_of_the_documentation_can_be_rehearsed(
    module: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: pathlib.Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {}
    for command in SHOWN:
        apart = {"...", "--help", "--table3", "--tyro-print-completion"}
        if command.module != module or apart.intersection(command.words):
            continue
        words = filled(command.words, by="nowhere_7f3")
        code = rehearsed(module, words, monkeypatch)
        said = "".join(capsys.readouterr())
        # What the command needs of the reader, or of a run before it, is not here: told by name.
        needed = any(word in said for word in words if re.search(r"[/_.]", word))
        if code not in (0, None) and not (code == 2 and (needed or "leave it out once" in said)):
            wrong[str(command)] = f"{code}: {said}"
    assert not wrong, "\n".join(f"{name}\n{text}" for name, text in wrong.items())
    assert not list(tmp_path.iterdir())


def test_an_option_that_does_not_exist_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    complaint = read_by_its_program(
        "experiments.compare", ["1", "1", "--colour"], monkeypatch, capsys
    )
    assert "--colour" in complaint


def test_the_list_of_jobs_has_every_program_with_a_command_line() -> None:
    found = set()
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if re.search(r"^if __name__ == .__main__.:", text, re.MULTILINE):
                name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
                found.add(name.removesuffix(".__main__"))
    assert {job.module for job in JOBS} == found - CHILDREN
    assert found >= CHILDREN


def test_every_job_says_what_it_does_and_how_long_it_takes() -> None:
    for job in JOBS:
        assert job.what.endswith((".", "?")), job
        assert job.takes, f"{job.module}: no sentence 'Takes ...' in its docstring"
        assert not re.search(r"^Takes ", job.body, re.MULTILINE), job


def test_the_page_of_commands_is_what_the_docstrings_say() -> None:
    page = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    made = insert(page, listing.markdown(JOBS), "jobs")
    assert page == made, "run python -m experiments --into docs/commands.md"


def test_the_page_of_metrics_has_each_as_tables_show_it() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (more|less) \|", page, re.MULTILINE)
    sides = {1: "more", -1: "less"}
    assert {name: (label, side) for name, label, side in rows} == {
        name: (metric.label, sides[metric.better]) for name, metric in results.METRICS.items()
    }


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as code hosts and MyST make them."""
    found: dict[str, int] = {}
    inside = False
    for line in text.splitlines():
        inside ^= line.startswith("```")
        heading = re.match(r"#{1,6} (.+)", line)
        if heading and not inside:
            name = re.sub(r"[^\w\- ]", "", heading[1].strip().lower()).replace(" ", "-")
            found[name] = found.get(name, -1) + 1
    return {f"{name}-{k}" if k else name for name, last in found.items() for k in range(last + 1)}


def links(text: str) -> list[str]:
    """Targets of links, outside of code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "", re.sub(r"\[`[^`\n]*`\]", "[]", prose))
    return re.findall(r"\]\(<?([^)>\s]+)>?\)", prose)


def content(page: pathlib.Path) -> str:
    """A page with what it includes."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"^```\{include\} (\S+)", text, re.MULTILINE):
        text += (page.parent / name).read_text(encoding="utf-8")
    return text


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: pathlib.Path) -> None:
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        if place.startswith("api/"):
            continue  # made when the site is built, which checks them
        if not target.is_file():
            broken.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(content(target)):
            broken.append(f"{link}: no such heading")
    assert not broken


def test_a_broken_link_is_noticed() -> None:
    text = "# A `b.py` c\n\n## A\n\n## A\n\n```\n# no\n```\n[`x`](y.md#z) and `[a](b)`\n"
    assert anchors(text) == {"a-bpy-c", "a", "a-1"}
    assert links(text) == ["y.md#z"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(
        rf"`((?:{'|'.join(PACKAGES)}|tests|docs)/[\w./]+\.(?:py|toml|json|xml|md|safetensors))`",
        text,
    )
    assert not [name for name in named if not (REPOSITORY / name).is_file()]


def test_every_job_has_a_transcript_or_a_reason_why_not() -> None:
    path = REPOSITORY / "docs" / "transcripts.py"
    spec = importlib.util.spec_from_file_location("transcripts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    said = [command.words for command in module.COMMANDS] + list(module.APART)
    assert {words.split()[0] for words in said} == {job.module for job in JOBS}
    for page in sorted((REPOSITORY / "docs" / "transcripts").glob("*.md")):
        assert "not expected" not in page.read_text(encoding="utf-8"), page.name


def test_every_page_is_in_the_index() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(?:\w+ <)?(\w+)>?$", index, re.MULTILINE))
    assert {page.stem for page in PAGES[1:]} - {"index"} <= listed


FIGURE = r"\d[\d,]*(?:\.\d+)?(?: ± \d[\d,]*\.\d+)?"
"""A number with its spread, as tables write it."""
GAP = "\0"
"""Stands for what is filled in."""


def marked(name: str, page: str) -> list[list[str]]:
    """Rows of the table between two marks of a page, cell by cell."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    _, _, rest = text.partition(f"<!-- {name}:begin -->")
    inside, _, _ = rest.partition(f"<!-- {name}:end -->")
    lines = [line for line in inside.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_excerpt_of_the_readme_is_out_of_the_page_of_results() -> None:
    head, _, *rows = marked("excerpt", "README.md")
    marks = {"test objects": "results", "YCB": "ycb"}
    assert len(rows) >= 5
    for column, heading in enumerate(head[1:], 1):
        where, _, stage = heading.partition(": ")
        whole = marked(marks[where], "docs/results.md")
        stage = {"stored": "dataset"}.get(stage, stage)
        (at,) = [k for k, cell in enumerate(whole[0]) if cell.split()[-1:] == [stage]]
        cells = {row[0]: row[at] for row in whole}
        for row in rows:
            assert row[column] == cells[row[0]], (heading, row[0])


def test_figures_of_the_readme_are_on_the_pages_that_it_names() -> None:
    _, _, *rows = marked("figures", "README.md")
    assert len(rows) >= 8
    for measured, *cells, page in rows:
        (link,) = links(page)
        text = (REPOSITORY / link.partition("#")[0]).read_text(encoding="utf-8")
        on_page = set(re.findall(FIGURE, text)) | set(re.findall(r"\d[\d,]*(?:\.\d+)?", text))
        found = [figure for cell in cells for figure in re.findall(FIGURE, cell)]
        assert found, measured
        assert not [figure for figure in found if figure not in on_page], measured


def said(source: str) -> list[str]:
    """The strings of a source file, each as one line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
            found.append("".join(map(str, parts)))
    return [" ".join(text.split()) for text in found]


def test_messages_that_are_explained_are_those_of_the_code() -> None:
    """For a message `a ... b` some string of the code has a and, after it, b."""
    sources = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    known = {text for path in sources for text in said(path.read_text(encoding="utf-8"))}
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    known.add(" ".join(makefile.replace("\\\n", " ").split()))
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    messages = [line for block in blocks for line in block.splitlines()]
    assert len(messages) > 15
    for message in messages:
        pattern = re.compile(".*".join(map(re.escape, message.split("..."))))
        assert any(pattern.search(text) for text in known), message


def test_the_lock_of_the_documentation_names_what_is_declared() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {
        re.split(r"[\[<>=~! ]", line)[0] for line in project["optional-dependencies"]["docs"]
    }
    locked = (REPOSITORY / "requirements-docs.lock").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line) for line in locked)
    assert {name.lower() for name in declared} <= {line.split("==")[0].lower() for line in locked}
    both = (REPOSITORY / "requirements.lock").read_text().split()
    versions = dict(line.lower().split("==") for line in both)
    for line in locked:
        name, _, version = line.lower().partition("==")
        assert versions.get(name, version) == version
