"""Selection from the command line: files, Gemini over HTTP, replay, mistakes."""

import json
import pathlib
import sys

import numpy as np
import pytest

from experiments import select
from realdex_jax.data import object_files, schema, store
from realdex_jax.data.schema import GraspSet
from realdex_jax.generate import Candidates
from tests.realdex_jax.select import fake_gemini as fake

KEY = "canary-5b1e-of-nobody"


@pytest.fixture(autouse=True)
def generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored grasps stand in for generated ones: what is tested comes after."""

    def generated(hand, model, cloud, count, seed):
        grasps: GraspSet = schema.take(
            store.open_dataset("realdex-sim").grasps("cosmetics"), slice(count)
        )
        return Candidates(grasps, grasps, np.arange(count), np.ones(count, bool), {})

    monkeypatch.setattr(select.chain, "generated", generated)
    monkeypatch.setattr(select, "SEEN", (64, 48))
    monkeypatch.setattr(select, "SMALL", (32, 24))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    some = ("--object", "cosmetics", "--count", 6, "--top", 2, *words)
    monkeypatch.setattr(sys, "argv", ["experiments/select.py", *map(str, some)])
    select.main()


def said(folder: pathlib.Path) -> list[dict]:
    return json.loads((folder / "selection.json").read_text())["objects"]["cosmetics"]


def test_the_local_choice_is_written_with_reasons(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--out", tmp_path)
    lines = said(tmp_path)
    assert len(lines) == 6
    chosen = sorted((x for x in lines if x["place"]), key=lambda x: x["place"])
    assert [x["place"] for x in chosen] == [1, 2]
    assert all(x["by"] == "local" and x["explanation"].endswith(".") for x in lines)
    assert chosen[0]["score"] == max(x["score"] for x in lines)
    grasps = object_files.load_grasps(tmp_path / "cosmetics.npz")
    assert len(grasps) == 2
    np.testing.assert_allclose(grasps.columns["score"], [x["score"] for x in chosen], atol=1e-3)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64") == 2
    assert chosen[0]["explanation"].replace("'", "&#x27;") in page
    assert (tmp_path / "sheets" / "cosmetics.jpg").stat().st_size > 1000
    assert "cosmetics" in capsys.readouterr().out


def test_gemini_scores_over_http_and_a_transcript_replays_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    out, again = tmp_path / "out", tmp_path / "again"
    with fake.FakeGemini() as server:
        words = ("--scorer", "gemini", "--model-name", "m-1", "--input-price", 0.3)
        words = (
            *words,
            "--output-price",
            2.5,
            "--url",
            server.url,
            "--requirement",
            "hand it over",
        )
        run(monkeypatch, *words, "--out", out)
        asked = len(server.requests)
        assert asked == 1
        assert "hand it over" in server.requests[0].text
        told = " ".join(capsys.readouterr().out.split())
        assert "m-1: 6 of 6 grasps scored, 0 of them kept from before; 1 requests, which" in told
        run(monkeypatch, *words, "--out", out)  # everything is in the transcript
        assert len(server.requests) == asked
        told = " ".join(capsys.readouterr().out.split())
        assert "6 of them kept from before; 0 requests, which cost 0.0000 of --cap 1" in told
        run(monkeypatch, *words, "--cap", 1e-6, "--out", tmp_path / "poor")
        assert len(server.requests) == asked
        told = " ".join(capsys.readouterr().out.split())
        assert "cosmetics: scoring 6 grasps may cost 0.0" in told
        assert "m-1: 0 of 6 grasps scored" in told
        assert "not scored by m-1: " in told
    lines = said(out)
    assert {x["by"] for x in lines} == {"m-1"}
    monkeypatch.delenv("GEMINI_API_KEY")
    words = ("--replay", out, "--model-name", "m-1")
    run(monkeypatch, *words, "--requirement", "hand it over", "--out", again)
    assert said(again) == lines
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scorer", "gemini"), "needs --model-name, --input-price and --output-price"),
        (
            ("--scorer", "gemini", "--model-name", "m", "--input-price", 1, "--output-price", 1),
            "GEMINI_API_KEY",
        ),
        (("--requirement", "hand it over"), "add --scorer gemini"),
        (("--replay", "nowhere", "--model-name", "m"), "no transcript at nowhere/transcript"),
        (("--replay", "nowhere"), "needs --model-name"),
        (("--seed", -1), "a seed is not negative"),
        (("--scale", 0.1), "add --objects"),
        (("--objects", "folder"), "--object and --objects: give one of them"),
        (("--top", 0), "both at least one"),
        (("--object", "teapot"), "no parametric object 'teapot'"),
    ],
)
def test_mistakes_end_in_one_line(
    words: tuple[object, ...],
    message: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "--out", tmp_path, *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().out
