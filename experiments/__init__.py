"""One script per job: `python -m experiments.NAME --help`."""

import sys
import types


def _said(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    """A line for Ctrl-C where no job has begun to listen for it: while its imports run."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("stopped\n")
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m":  # as Python has it while it looks for the module of `python -m`
    sys.excepthook = _said
