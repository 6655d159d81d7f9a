"""Tables as CSV and LaTeX: read back, and intervals against SciPy's."""

import csv
import io
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from scipy import stats

from realdex_jax.evaluation import results, tables
from realdex_jax.evaluation.results import Row, stat

DEPTHS = np.array([0.1, 0.2, 0.15, 0.3])


@pytest.fixture
def found() -> results.Results:
    held = stat([1.0, 1.0, 0.0, 1.0])
    rows = [
        Row("ycb_x", "test", "cvae", "raw", 2, 4, {"held": held, "penetration_cm": stat(DEPTHS)}),
        Row("ycb_x", "test", "cvae", "physics", 2, 0, {"held": stat([])}),
    ]
    return results.collect("python -m x", [0], {"still": {"friction": 1.0}}, rows)


def test_every_metric_of_every_row_is_a_line_with_its_interval(found, tmp_path):
    path = tables.save(found, tmp_path / "results.json")
    assert results.load(path).rows == found.rows
    lines = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert [(line["stage"], line["metric"]) for line in lines] == [
        ("raw", "held"),
        ("raw", "penetration_cm"),
        ("physics", "held"),
    ]
    low, high = stats.binomtest(3, 4).proportion_ci(method="wilson")
    # 1.96 instead of the normal's own 1.95996
    assert float(lines[0]["low"]) == pytest.approx(low, abs=1e-4)
    assert float(lines[0]["high"]) == pytest.approx(high, abs=1e-4)
    ends = stats.t.interval(0.95, 3, DEPTHS.mean(), stats.sem(DEPTHS))
    assert (float(lines[1]["low"]), float(lines[1]["high"])) == pytest.approx(ends)
    assert lines[2]["mean"] == lines[2]["low"] == lines[2]["high"] == ""


def test_no_interval_of_a_single_value(found):
    assert tables.interval("penetration_cm", stat([0.1]), "grasps") is None
    assert tables.interval("held", stat([0.9, 0.8, 1.0]), "seeds") is not None


def test_latex_has_the_terminal_s_cells_and_nothing_that_breaks_it(found, tmp_path: pathlib.Path):
    text = tables.as_latex(found)
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in body} == {2}
    assert r"ycb\_x test" in body[0]
    assert any(r"$\pm$" in line for line in body)
    if shutil.which("pdflatex"):
        page = r"\documentclass{article}\begin{document}" + text + r"\end{document}"
        (tmp_path / "page.tex").write_text(page)
        subprocess.run(["pdflatex", "-halt-on-error", "page.tex"], cwd=tmp_path, check=True)
