"""Lists all jobs: what each does, and how long it takes.

    python -m experiments                              # this list
    python -m experiments --into docs/commands.md      # the page of commands, from the docstrings
    source <(python -m experiments --completion bash)  # the Tab key completes jobs and options

Everything is read from the modules' docstrings: the first line, and the sentence that begins with
"Takes". No module is imported, so a job is listed even where a package that it needs is missing.
Takes a second.
"""

import ast
import dataclasses
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import commands, completion, docstring

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("experiments", "robot", "capture", "benchmarks")
"""Where jobs may be."""


@dataclasses.dataclass(frozen=True)
class Jobs:
    """Command line of this script."""

    into: Path | None = None
    """Document to update, between `<!-- jobs:begin -->` and `<!-- jobs:end -->`."""
    completion: Literal["bash"] | None = None
    """Print what makes a shell complete `python -m JOB`, its options and their choices."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One module that can be run."""

    module: str
    """As it is typed after `python -m`."""
    what: str
    """The docstring's first line."""
    body: str
    """The rest of it, without the sentence about time."""
    takes: str
    """Expected time; empty if the docstring does not say."""


def main() -> None:
    """Prints the list or updates the page."""
    config = commands.read(Jobs, __doc__)
    if config.completion is not None:
        print(completion.script([job.module for job in jobs()]))
        return
    if config.into is None:
        # Into a file or a pipe nothing need be broken, if nobody asks for it.
        narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
        Console(width=None if narrow else 240).print(table(jobs()))
        return
    # Late: they import JAX, for which the list need not wait.
    from experiments.report_table import insert
    from realdex_jax.evaluation import results

    with commands.ending(Console(stderr=True)):
        text = insert(config.into.read_text(encoding="utf-8"), markdown(jobs()), "jobs")
        results.write_whole(config.into, text)


def jobs(root: Path = ROOT) -> tuple[Job, ...]:
    """Every module below `PACKAGES` that can be run and has a command line."""
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).glob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if _runs(tree):
                name = package if path.stem == "__main__" else f"{package}.{path.stem}"
                found.append(_job(name, ast.get_docstring(tree) or ""))
    return tuple(found)


def table(found: Sequence[Job]) -> Table:
    """One line a job."""
    shown = Table(
        title="python -m JOB --help explains each", title_justify="left", box=None, pad_edge=False
    )
    shown.add_column("job", no_wrap=True)
    shown.add_column("what it does")
    shown.add_column("takes")
    for job in found:
        shown.add_row(job.module, escape(job.what), escape(job.takes))
    return shown


def markdown(found: Sequence[Job]) -> str:
    """The page of commands: a table, then each docstring."""
    lines = ["| command | what it does | takes |", "|---|---|---|"]
    lines += [f"| [`{j.module}`](#{_anchor(j)}) | {j.what} | {j.takes} |" for j in found]
    for job in found:
        lines += ["", f"### {job.module}", "", job.what]
        if job.body:
            lines += ["", _prose(job.body)]
        lines += ["", f"Takes {job.takes}."]
    return "\n".join(lines)


def _runs(tree: ast.Module) -> bool:
    """Whether a module runs as a script and has a command line; some are children of others."""
    guarded = any(
        isinstance(node, ast.If)
        and ast.unparse(node.test).replace('"', "'") == "__name__ == '__main__'"
        for node in tree.body
    )
    return guarded and any(
        isinstance(node, ast.Call) and ast.unparse(node.func) in ("tyro.cli", "commands.read")
        for node in ast.walk(tree)
    )


def _job(module: str, text: str) -> Job:
    explained = docstring.read(text)
    return Job(module, explained.what, explained.body, explained.takes)


def _anchor(job: Job) -> str:
    """As Markdown makes it of the heading."""
    return re.sub(r"[^\w-]", "", job.module.lower())


def _prose(body: str) -> str:
    """A docstring as Markdown: examples fenced, pages of the documentation as links."""
    parts = []
    for part in docstring.paragraphs(body):
        if docstring.example(part):
            text = "\n".join(line.removeprefix("    ") for line in part.splitlines())
            text = re.sub(r"(?<!\\)\n( +--)", r" \\\n\1", text)  # as a shell reads it
            parts.append(f"```bash\n{text}\n```")
        else:
            linked = re.sub(r"`?\bdocs/(\w+\.md)`?", r"[\1](\1)", part.strip())
            # Outside of code, what Markdown would take for a tag or for emphasis.
            parts.append(re.sub(r"(`[^`]+`)|([<*])", lambda m: m[1] or f"\\{m[2]}", linked))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
