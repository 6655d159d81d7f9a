"""What the command lines share: how they were started, how they end, and their bar."""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from realdex_jax.errors import ConfigError, RealdexError


def line() -> str:
    """How this process was started, in the form a person types it."""
    module = Path(sys.argv[0]).stem
    return " ".join(["python -m", f"experiments.{module}", *map(shlex.quote, sys.argv[1:])])


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
        console.print(
            f"[red]{type(error).__name__}[/]: {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(2)
    except KeyboardInterrupt:
        console.print(stopped)
        if status:
            sys.exit(status)


def make_folder(out: Path) -> None:
    """Makes the folder of `--out`, before the work and not after minutes of it.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}; choose a folder") from error


def progress(console: Console) -> Progress:
    """The bar of long work."""
    return Progress(
        TextColumn("{task.description:<34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
