import pathlib
import subprocess
import sys

import pytest

from experiments import report_table
from realdex_jax.evaluation import results
from realdex_jax.evaluation.results import Row, stat


def test_a_table_replaces_what_stood_between_the_marks(tmp_path: pathlib.Path) -> None:
    rows = [Row("d", "test", "cvae", "raw", 1, 2, {"held": stat([0.0, 1.0])})]
    found = results.collect("python -m x", [0], {"still": {"mass": 0.1}}, rows)
    where = results.save(found, tmp_path / "results.json")
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n")
    command = [sys.executable, "-m", "experiments.report_table", str(where), "--into", str(page)]
    for _ in range(2):
        subprocess.run(command, check=True, timeout=200)
        text = page.read_text()
        assert text.startswith("# A\n")
        assert text.endswith("<!-- results:end -->\nafter\n")
        assert "old" not in text
        assert text.count("| held 1 s | 0.500 |") == 1


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(results.ResultsError, match="once each"):
        report_table.insert("nothing here", "| a |")


@pytest.mark.parametrize("mark", ["results", "ycb"])
def test_the_page_of_results_has_the_marks(mark: str, repository: pathlib.Path) -> None:
    page = (repository / "docs" / "results.md").read_text(encoding="utf-8")
    assert "| a |" in report_table.insert(page, "| a |", mark)
