"""Every job reads its command line, says what is wrong with it, and ends in the same way."""

import dataclasses
import importlib
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
import warnings
from typing import Annotated

import pytest
import tyro
from rich.console import Console

import experiments
from experiments import __main__ as listing
from experiments import commands, completion, docstring, eval_sim
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import results

JOBS = {job.module: job for job in listing.jobs()}
NOWHERE = "no-such-thing"
MISTAKES: dict[str, tuple[str, ...]] = {
    "experiments": ("--into", NOWHERE),
    "experiments.annotate": (NOWHERE,),
    "experiments.calibrate": ("--rig", NOWHERE),
    "experiments.clouds": (NOWHERE,),
    "experiments.compare": (NOWHERE, NOWHERE),
    "experiments.convert": (NOWHERE, "out"),
    "experiments.data_table": ("--data", NOWHERE),
    "experiments.demo": ("--preset", NOWHERE),
    "experiments.doctor": (NOWHERE,),
    "experiments.eval_clouds": ("--object", NOWHERE),
    "experiments.eval_icp": ("--seeds", NOWHERE),
    "experiments.eval_motion": ("--models", NOWHERE),
    "experiments.eval_sim": ("--data", NOWHERE),
    "experiments.eval_sync": ("--object", NOWHERE),
    "experiments.eval_tracking": ("--objects", NOWHERE),
    "experiments.export": ("--data", NOWHERE),
    "experiments.export_lerobot": ("--data", NOWHERE),
    "experiments.fit_selection": ("--model", NOWHERE),
    "experiments.inspect": (NOWHERE,),
    "experiments.make_dataset": ("--objects", NOWHERE),
    "experiments.make_frames": ("--objects", NOWHERE),
    "experiments.motion_data": ("--data", NOWHERE),
    "experiments.notebooks": (NOWHERE,),
    "experiments.record": ("out", "--rig", "replay", "--source", NOWHERE),
    "experiments.report_table": (NOWHERE,),
    "experiments.select": ("--data", NOWHERE),
    "experiments.soak": ("out", "--minutes", NOWHERE),
    "experiments.teleop": ("--source", NOWHERE),
    "experiments.train_motion": ("--data", NOWHERE),
    "experiments.train_pose": ("--data", NOWHERE),
    "experiments.user_study": ("serve", "--items", NOWHERE),
    "experiments.view": (NOWHERE,),
    "experiments.view_pictures": ("--width", NOWHERE),
    "experiments.write_release": ("--data", NOWHERE),
    "robot.execute": ("--object", NOWHERE),
    "robot.simulated": ("--object", NOWHERE),
    "robot.trial": ("--faults", NOWHERE),
    "benchmarks.run": ("--only", NOWHERE),
}
"""Of every job, a path or a name that leads nowhere."""


@pytest.fixture
def typed(monkeypatch, capsys, tmp_path):
    """Runs a job in this process as if its line had been typed; its status and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(module: str, *words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [module, *words])
        code: object = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # imported before, here run anew
            try:
                runpy.run_module(module, run_name="__main__")
            except SystemExit as ended:
                code = ended.code or 0
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        said = capsys.readouterr()
        assert isinstance(code, int), code
        return code, said.out + said.err

    return run


def test_every_job_is_tried_and_ends_as_the_others_do(repository) -> None:
    assert set(MISTAKES) == set(JOBS)
    for module in JOBS:
        path = repository.joinpath(*module.split("."))
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        text = path.read_text(encoding="utf-8")
        assert "commands.read(" in text, module
        assert "commands.ending(" in text, module
        assert "tyro.cli(" not in text, module


@pytest.mark.parametrize("module", JOBS)
def test_help_has_what_it_does_examples_and_a_time(module, typed) -> None:
    code, said = typed(module, "--help")
    assert code == 0
    head, _, rest = said.partition("\n\nExamples:\n")
    usage, _, what = head.partition("\n\n")
    assert usage.startswith(f"usage: python -m {module} ")
    assert what == JOBS[module].what
    assert f"    python -m {module}" in rest.partition("\n\n")[0]
    assert f"\nTakes:\n    {JOBS[module].takes[:40]}" in rest
    assert "-h, --help" in rest


@pytest.mark.parametrize(
    "module", ["experiments.compare", "experiments.eval_sim", "experiments.user_study"]
)
def test_an_option_that_is_none_is_named_with_those_that_are(module, typed) -> None:
    code, said = typed(module, "--no-such-option")
    assert code == 2
    assert "--no-such-option: no such option; known: --" in said
    assert "--help" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("module", JOBS)
def test_what_leads_nowhere_is_named_and_nothing_is_written(module, typed, tmp_path) -> None:
    code, said = typed(module, *MISTAKES[module])
    assert code == 2, said
    assert NOWHERE in said
    assert "Traceback" not in said
    assert "\n\n" not in said.strip()
    assert not list(tmp_path.rglob("*.json"))


@dataclasses.dataclass(frozen=True)
class Small:
    """Settings of a test."""

    place: tyro.conf.Positional[pathlib.Path]
    """Where from."""
    out: pathlib.Path = pathlib.Path("runs/small")
    """Where to."""
    count_all: bool = False
    """How."""


@dataclasses.dataclass(frozen=True)
class Other:
    """Settings of another subcommand."""

    seed: int = 0
    """Of nothing."""


TEXT = """Does a thing.

    python -m a.small PLACE     # so
    python -m a.small PLACE --count-all \\
        --out x

First words,
wrapped.

Second words.
Takes a while
and more.
"""


def test_options_are_those_of_the_subcommand_that_was_typed() -> None:
    both = (
        Annotated[Small, tyro.conf.subcommand("small")]
        | Annotated[Other, tyro.conf.subcommand("other")]
    )
    assert commands.options(Small) == ("--out", "--count-all")
    assert commands.options(both) == ("--out", "--count-all", "--seed")
    assert commands.options(both, ["other", "--x"]) == ("--seed",)


def test_help_is_put_together_from_the_docstring(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert docstring.helped(TEXT) == (
        "Does a thing.\n\n"
        "Examples:\n    python -m a.small PLACE     # so\n"
        "    python -m a.small PLACE --count-all \\\n        --out x\n\n"
        "Details:\n    - First words, wrapped.\n    - Second words.\n\n"
        "Takes:\n    a while and more"
    )


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("x", "--cuont-all"), "--cuont-all: no such option; known: --out, --count-all, --help"),
        (("x", "--no-count-all"), ""),
        (("x", "--count_all"), ""),
        (("--out", "y"), "Missing from"),
    ],
)
def test_a_line_is_read_or_refused_with_the_options_there_are(words, wrong, capsys) -> None:
    if not wrong:
        assert commands.read(Small, TEXT, words).place == pathlib.Path("x")
        return
    with pytest.raises(SystemExit) as ended:
        commands.read(Small, TEXT, words)
    assert ended.value.code == 2
    assert wrong in " ".join(capsys.readouterr().err.split())


def planned(config: Small) -> list[str]:
    if config.count_all:
        raise ConfigError("--count-all cannot be; leave it out")
    return [f"3 things from {config.place}"]


def test_a_dry_run_says_what_would_be_done_and_leaves_the_settings_as_they_are(
    capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    got = commands.read(Small, TEXT, ("x",), plan=planned)
    assert type(got) is Small
    with pytest.raises(SystemExit) as ended:
        commands.read(Small, TEXT, ("x", "--dry-run"), plan=planned)
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        "would run: Does a thing.",
        "3 things from x",
        "results go to runs/small",
        "by default settings it takes a while and more",
        "nothing was done: --dry-run",
    ]
    with pytest.raises(SystemExit) as ended:
        commands.read(Small, TEXT, ("x", "--dry-run", "--count-all"), plan=planned)
    assert ended.value.code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv0", "name"),
    [
        ("/a/experiments/record.py", "experiments.record"),
        ("/a/experiments/__main__.py", "experiments"),
        ("/a/robot/trial.py", "robot.trial"),
        ("robot/trial.py", "robot.trial"),
        ("robot.trial", "robot.trial"),
        ("trial.py", "trial.py"),
    ],
)
def test_a_job_is_named_as_it_is_typed(argv0, name, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [argv0, "a b"])
    assert commands.name() == name
    assert commands.line() == f"python -m {name} 'a b'"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("x is 1; must be 2"), 2, "ConfigError: x is 1; must be 2\n"),
        (OSError(28, "No space left on device", "f"), 2, "No space left on device"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_each_ending_has_its_status(error, code, said, capsys) -> None:
    with pytest.raises(SystemExit) as ended, commands.ending(Console(stderr=True)):
        raise error
    assert ended.value.code == code
    assert said in capsys.readouterr().err


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), commands.ending(Console(quiet=True)):
        _ = 1 / 0


@pytest.fixture(scope="module")
def shell(repository, tmp_path_factory):
    """A bash that has read the script, once: lists what the Tab key offers after some words."""
    script = tmp_path_factory.mktemp("shell") / "completion"
    jobs = ["experiments.compare", "experiments.convert", "robot.trial"]
    script.write_text(completion.script(jobs))

    def tab(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        asked = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _realdex; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", asked],
            cwd=repository,
            capture_output=True,
            text=True,
            check=True,
        )
        assert not done.stderr
        return done.stdout.split()

    return tab


def test_the_tab_key_completes_jobs(shell) -> None:
    assert shell("python", "-m", "experiments.co") == ["experiments.compare", "experiments.convert"]
    assert shell("python", "-m", "rob") == ["robot.trial"]
    assert shell("python", "rob") == []
    assert shell("python", "-m", "http.server", "--") == []


@pytest.mark.slow  # processes
def test_the_tab_key_completes_a_job_s_options_and_their_choices(shell) -> None:
    offered = shell(sys.executable, "-m", "experiments.convert", "a", "b", "--")
    assert {"--format", "--jobs", "--fresh", "--help"} <= set(offered)
    assert shell(sys.executable, "-m", "experiments.convert", "a", "--fo") == ["--format"]


@pytest.mark.parametrize(
    ("module", "work", "words"),
    [
        ("eval_motion", "run", ()),
        ("make_dataset", "run", ()),
        ("make_frames", "run", ()),
        ("motion_data", "open_motions", ()),
        ("eval_sim", "evaluate", ()),
        ("doctor", "examine", ()),
        ("soak", "soak", ("out",)),
    ],
)
def test_ctrl_c_ends_a_job_in_a_line(module, work, words, monkeypatch, capsys, tmp_path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    job = importlib.import_module(f"experiments.{module}")
    monkeypatch.setattr(job, work, interrupted)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"experiments.{module}", *words])
    with pytest.raises(SystemExit) as ended:
        job.main()
    assert ended.value.code == 130
    assert capsys.readouterr().out.startswith("stopped")


@pytest.mark.parametrize("stage", ["evaluate", "publish"])
def test_what_a_signal_cut_short_is_published_and_ends_as_interrupted(
    stage, monkeypatch, tmp_path
) -> None:
    published = []

    def evaluate(*_: object) -> eval_sim.Evaluation:
        found = results.collect("c", [0], {"still": {}}, [])
        return eval_sim.Evaluation(found, [], [], {}, stopped=stage == "evaluate")

    monkeypatch.setattr(eval_sim, "evaluate", evaluate)
    monkeypatch.setattr(eval_sim, "publish", lambda *_: published.append(1))
    monkeypatch.setattr(sys, "argv", ["experiments.eval_sim", "--out", str(tmp_path)])
    if stage == "evaluate":
        with pytest.raises(SystemExit, match="130"):
            eval_sim.main()
    else:
        eval_sim.main()
    assert published == [1]


def test_ctrl_c_while_python_loads_is_a_line_and_other_errors_are_not_hidden(capsys) -> None:
    experiments._said(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "stopped\n"
    experiments._said(ZeroDivisionError, ZeroDivisionError("by us"), None)
    assert "ZeroDivisionError: by us" in capsys.readouterr().err


@pytest.mark.slow  # processes
@pytest.mark.parametrize("words", [("make_dataset", "--objects", "mug", "--batch", "16")])
def test_ctrl_c_reaches_a_job_and_its_processes(words, repository, tmp_path) -> None:
    """As a terminal sends it: to the whole group."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"experiments.{words[0]}", *words[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 300
        while not list(tmp_path.glob("runs/*.parts")) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(2.0)  # its processes begin
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    assert "stopped; the same command goes on" in said
    assert "Traceback" not in said


@pytest.mark.slow  # processes
def test_real_processes_end_with_their_status(repository, tmp_path) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(repository), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    code, said = run("experiments.compare", "runs/one", "runs/two")
    assert (code, said.count("\n")) == (2, 1), said
    assert "runs/one: no such file or folder" in said
    code, said = run("experiments.train_pose", "--dry-run", "--steps", "7")
    assert code == 0, said
    assert "7 updates, each of" in said
    assert not list(tmp_path.iterdir())
    code, said = run("experiments.train_pose", "--dry-run", "--steps", "-7")
    assert code == 2, said
    assert "Traceback" not in said
