"""Copies a results file into a document, between two marks, so that no number is typed.

    python -m experiments.report_table runs/eval_sim/results.json --into docs/results.md

The marks are `<!-- results:begin -->` and `<!-- results:end -->`; without `--into` the table is
printed.
Takes seconds.
"""

import dataclasses
from pathlib import Path

import tyro
from rich.console import Console

from experiments import commands
from realdex_jax.evaluation import report, results


@dataclasses.dataclass(frozen=True)
class ReportTable:
    """Command line of this script."""

    json: tyro.conf.Positional[Path] = Path("runs/demo/results.json")
    """The results file."""
    into: Path | None = None
    """Document to update."""
    mark: str = "results"
    """Name in the marks, for documents with several tables."""
    metrics: tuple[str, ...] = ()
    """Only these metrics, and rows down: for tables of many rows."""


def main() -> None:
    """Prints the table or puts it into a document."""
    config = commands.read(ReportTable, __doc__)
    # The table goes to the output, so what went wrong must not.
    with commands.ending(Console(stderr=True)):
        table = report.markdown_table(results.load(config.json), known(config.metrics))
        if config.into is None:
            print(table)
        else:
            text = insert(config.into.read_text(encoding="utf-8"), table, config.mark)
            results.write_whole(config.into, text)


def known(metrics: tuple[str, ...]) -> tuple[str, ...]:
    """The metrics, if all of them are.

    Raises:
        ResultsError: One is not.
    """
    for name in metrics:
        if name not in results.METRICS:
            raise results.ResultsError(f"no metric {name!r}; known: {', '.join(results.METRICS)}")
    return metrics


def insert(document: str, table: str, mark: str = "results") -> str:
    """Replaces what stands between the marks.

    Raises:
        ResultsError: The marks are not there once each, in order.
    """
    begin, end = (f"<!-- {mark}:{edge} -->" for edge in ("begin", "end"))
    if document.count(begin) != 1 or document.count(end) != 1:
        raise results.ResultsError(f"the document must have {begin} and {end} once each")
    before, rest = document.split(begin)
    if end not in rest:
        raise results.ResultsError(f"{end} stands before {begin}")
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    main()
