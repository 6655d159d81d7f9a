"""Inspection as a command: what it says, draws and answers."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks.store import make
from experiments import convert, inspect
from experiments.convert import Convert
from experiments.inspect import Inspect


def call(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["inspect", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as end:
        inspect.main()
    return end.value.code, capsys.readouterr().out


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A source of four objects, and the dataset converted from it."""
    folder = tmp_path_factory.mktemp("made")
    make(folder / "source", objects=4, grasps=15)
    convert.run(Convert(folder / "source", folder / "out", jobs=1), Console(quiet=True))
    return folder


def test_the_shipped_dataset_is_told_in_one_table(monkeypatch, capsys):
    code, text = call(monkeypatch, capsys, "realdex-sim")
    assert code == 0
    assert "objects by part: train 40, val 6, test 6" in text
    assert "8,720" in text
    assert "nothing to complain of" in text


def test_a_page_with_pictures_needs_nothing_else(made, tmp_path, monkeypatch, capsys):
    words = (made / "out", "--out", tmp_path / "p", "--objects", "2", "--grasps", "3")
    code, text = call(monkeypatch, capsys, *words)
    assert code == 0, text
    page = (tmp_path / "p" / "inspect.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page.replace("http-equiv", "")
    pictures = sorted((tmp_path / "p").glob("*.png"))
    assert len(pictures) == 2
    image = np.asarray(Image.open(pictures[0]))
    assert image.shape == (240, 3 * 320 + 2 * 4, 3)
    assert image[:, :320].std() > 5
    said = json.loads((tmp_path / "p" / "inspect.json").read_text())
    assert said["counts"]["all"]["grasps"] == 60
    assert said["findings"] == []


def test_findings_decide_the_exit_code(made, tmp_path, monkeypatch, capsys):
    convert.run(Convert(made / "source", tmp_path / "d", jobs=1), Console(quiet=True))
    (bad,) = (tmp_path / "d" / "grasps").glob("made-up-00001@0.100.npz")
    bad.write_bytes(bad.read_bytes()[:200])
    code, text = call(monkeypatch, capsys, tmp_path / "d", "--out", tmp_path / "p")
    assert code == 1
    assert "2 findings" in text
    assert "grasps/made-up-00001@0.100.npz" in text
    assert "SHA-256 as in dataset.json" in text
    assert "made-up-00001@0.100" in (tmp_path / "p" / "inspect.html").read_text()


def test_a_foreign_dataset_is_looked_at_without_converting(made, tmp_path, monkeypatch, capsys):
    words = (made / "source", "--sample", "2", "--out", tmp_path / "p", "--grasps", "1")
    code, text = call(monkeypatch, capsys, *words)
    assert code == 0, text
    assert "layout: dexgraspnet" in text
    assert "units: 20, of which 2 were read" in text
    assert len(list((tmp_path / "p").glob("*.png"))) == 2
    (made / "source" / "dataset" / "bad.npy").write_bytes(b"")
    try:
        code, text = call(monkeypatch, capsys, made / "source", "--sample", "30")
    finally:
        (made / "source" / "dataset" / "bad.npy").unlink()
    assert code == 1
    assert "bad@0.060" in text


def test_nothing_to_look_at_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    code, text = call(monkeypatch, capsys, tmp_path)
    assert code == 2
    assert "has no known layout" in text
    code, text = call(monkeypatch, capsys, tmp_path / "nothing")
    assert code == 2
    assert "Known names: realdex-sim" in text
    code, text = call(monkeypatch, capsys, "realdex-sim", "--grasps", "0")
    assert code == 2


def test_names_in_a_page_are_text(tmp_path):
    inspect._write(tmp_path, "<b>path</b>", inspect.Seen((("name", "<script>"),), (), (), {}))
    page = (tmp_path / "inspect.html").read_text()
    assert "<script>" not in page
    assert "<b>path" not in page


def test_settings_have_defaults():
    assert Inspect("realdex-sim").out is None
