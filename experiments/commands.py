"""What the command lines share: how they are read, how they end, and their bar.

Exit status of every job: 0 it is done, 1 it found a failure, 2 a mistake of the user (or a full
disk, a missing extra), 130 stopped by Ctrl-C. Jobs that have more say so.
"""

import contextlib
import dataclasses
import os
import shlex
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments import compiled, docstring
from realdex_jax.errors import ConfigError, RealdexError
from realdex_jax.training.bar import Bar

_Config = TypeVar("_Config")
DRY = "--dry-run"


def name() -> str:
    """The module of this process, as it is typed after `python -m`."""
    path = Path(sys.argv[0])
    if path.suffix != ".py" or not path.parent.name:
        return sys.argv[0]
    return f"{path.parent.name}.{path.stem}".removesuffix(".__main__")


def line() -> str:
    """How this process was started, in the form a person types it."""
    return shlex.join(["python", "-m", name(), *sys.argv[1:]])


def read(
    kind: type[_Config],
    text: str | None,
    words: Sequence[str] | None = None,
    prog: str = "",
    plan: Callable[[_Config], Iterable[str]] | None = None,
) -> _Config:
    """Reads a command line; one that is wrong ends with status 2, `--help` with 0.

    What the job then compiles is kept on disk (`experiments/compiled.py`).

    Args:
        kind: The settings, or a union of those of subcommands.
        text: Docstring of the job's module, for `--help`.
        words: What was typed; by default what this process was started with.
        prog: What was typed before that; by default the job.
        plan: Gives the job `--dry-run`: says in lines how much there is to do, and writes nothing.
    """
    try:
        config = _read(kind, text, words, prog, plan)
    except BrokenPipeError:
        _reader_gone()
    compiled.keep()
    return config


def _read(
    kind: type[_Config],
    text: str | None,
    words: Sequence[str] | None,
    prog: str,
    plan: Callable[[_Config], Iterable[str]] | None,
) -> _Config:
    given = sys.argv[1:] if words is None else list(words)
    # A shell completes the job's own name; to it `python -m` is another program.
    told = name() if given[:1] and given[0].startswith("--tyro-") else f"python -m {prog or name()}"
    explained = docstring.helped(text or "")
    try:
        if plan is None:
            return tyro.cli(kind, description=explained, prog=told, args=given)
        config = tyro.cli(_dry(kind), description=explained, prog=told, args=given)
    except SystemExit as ended:
        if ended.code == 2:
            _known_options(kind, given, dry=plan is not None)
        raise
    asked = dict(vars(config))
    dry = asked.pop("dry_run")
    plain = kind(**asked)
    if dry:
        rehearse(text or "", plain, plan)
    return plain


def rehearse(text: str, config: _Config, plan: Callable[[_Config], Iterable[str]]) -> NoReturn:
    """Says what a job would do, how much, for how long and where to; ends with status 0."""
    console, explained = Console(), docstring.read(text)
    with ending(console):
        lines = list(plan(config))
        places = [getattr(config, field, None) for field in ("out", "run", "dest")]
        for said in (
            f"would run: {explained.what}",
            *lines,
            *(f"results go to {out}{_used(out)}" for out in places if isinstance(out, Path)),
            f"by default settings it takes {explained.takes}",
            f"nothing was done: {DRY}",
        ):
            console.print(said, highlight=False, markup=False, soft_wrap=True)
    sys.exit(0)


def _used(out: Path) -> str:
    return ", which is there already" if out.exists() else ""


def _dry(kind: type[Any]) -> type[Any]:
    """The settings with one more."""
    said = "Say what would be done, how much, for how long and where to, and do nothing."
    flag = Annotated[bool, tyro.conf.arg(help=said), tyro.conf.FlagCreatePairsOff]
    return dataclasses.make_dataclass(
        kind.__name__, [("dry_run", flag, False)], bases=(kind,), frozen=True
    )


def options(kind: Any, given: Sequence[str] = ()) -> tuple[str, ...]:
    """The options of settings, or of the given subcommand or else all, as they are typed."""
    if typing.get_origin(kind) is Annotated:
        return options(typing.get_args(kind)[0])
    if not dataclasses.is_dataclass(kind):
        every = typing.get_args(kind)
        chosen = [one for one in every if _subcommand(one) in given] or every
        return tuple(dict.fromkeys(x for one in chosen for x in options(one)))
    hints = typing.get_type_hints(kind, include_extras=True)
    return tuple(
        "--" + field.name.replace("_", "-")
        for field in dataclasses.fields(kind)
        if tyro.conf.Positional not in getattr(hints[field.name], "__metadata__", ())
    )


def _subcommand(kind: Any) -> str | None:
    named = (getattr(one, "name", None) for one in getattr(kind, "__metadata__", ()))
    return next((one for one in named if one), None)


def _known_options(kind: Any, given: Sequence[str], *, dry: bool) -> None:
    """Lists the options where one was typed that is none."""
    known = (*options(kind, given), *((DRY,) if dry else ()), "--help")
    typed = [word.partition("=")[0].replace("_", "-") for word in given if word[:2] == "--"]
    plain = {word: word.replace("--no-", "--", 1) for word in typed if len(word) > 2}
    if wrong := [word for word in plain if not {word, plain[word]} & set(known)]:
        said = f"{', '.join(wrong)}: no such option; known: {', '.join(known)}"
        Console(stderr=True).print(said, highlight=False, markup=False)


@contextlib.contextmanager
def ending(console: Console, stopped: str = "stopped", status: int = 130) -> Iterator[None]:
    """Ends a command in one line, not a traceback; with status 2 after a mistake of the user.

    A disk that is full, or a folder nobody may write to, is no fault of the program either.

    Args:
        console: Where the line goes.
        stopped: What is said after Ctrl-C.
        status: Exit status then; 0 goes on, where Ctrl-C is the way to end.
    """
    try:
        yield
    except (RealdexError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _stdout_broken():
            _reader_gone()
        console.print(
            f"[red]{type(error).__name__}[/]: {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(2)
    except KeyboardInterrupt:
        console.print(stopped)
        if status:
            sys.exit(status)


def _stdout_broken() -> bool:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _reader_gone() -> NoReturn:
    """Ends quietly when what reads the output, `head` say, has had enough."""
    # Python flushes once more at its end, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(141)  # as a shell says of it


def make_folder(out: Path) -> None:
    """Makes the folder of `--out`, before the work and not after minutes of it.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}; choose a folder") from error


def progress(console: Console) -> Bar:
    """The bar of long work; into a file, lines now and then."""
    return Bar(
        TextColumn("{task.description:<34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
