"""From an object's cloud to the lifted object: two processes over ROS 2; what refuses to move."""

import json
import pathlib
import subprocess
import sys

import pytest
from rich.console import Console

from realdex_jax.errors import ConfigError
from robot import execute
from robot.execute import Execute

QUIET = Console(quiet=True)
QUICK = ("--count", "32", "--top", "3")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_a_mug_a_bottle_and_a_box_are_lifted(
    tmp_path: pathlib.Path, repository: pathlib.Path
) -> None:
    """As a user starts it. The tests' own process may hold too much for what is compiled here."""
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    names, lifted = ("mug", "body_lotion", "cracker_box"), {}
    for seed in range(3):
        todo = [name for name in names if name not in lifted]
        if not todo:
            break
        out = tmp_path / str(seed)
        command = [sys.executable, "-m", "robot.execute", "--object", *todo, *QUICK]
        done = subprocess.run(
            [*command, "--seed", str(seed), "--out", str(out)],
            cwd=repository,
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
        for one in json.loads((out / "results.json").read_text())["runs"]:
            assert one["confirmed"]
            if one["ending"] == "lifted":
                assert one["risen_cm"] > 5.0
                lifted[one["object"]] = out / f"{one['object']}_{seed}"
            else:
                # The watchdog of 50 ms is right to stop where this machine has other work to do,
                # and a robot whose time stood still meanwhile may let go. Of few grasps none may
                # have a plan. Then it is tried again, by another seed.
                assert one["ending"] in ("fault", "not lifted", "no plan passes"), one
                assert bool(one["reason"]) == (one["ending"] != "not lifted")
    assert lifted.keys() == set(names)
    for folder in lifted.values():
        events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [e["event"] for e in (events[0], events[-1])] == ["begin", "end"]
        assert sum(e["event"] == "send" for e in events) > 50
    folder = lifted["mug"]
    assert (folder / "predicted.mp4").stat().st_size > 1000
    assert (folder / "seen.mp4").stat().st_size > 1000
    assert "<video" in (folder.parent / "report.html").read_text()


REAL = ("--robot", "ros2", "--preset", "shadow_ur10e")
POSE = ("--object-pose", 1, 0, 0, 0, 0, 0, 0.05)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--runs", 0), "--runs 0"),
        (("--speed", 1.5), "--speed 1.5; more than 0, at most 1"),
        (("--object", "teapot"), "no parametric object 'teapot'"),
        (("--preset", "plain_ur"), "--preset are for --robot ros2"),
        (POSE, "--object-pose and --preset are for"),
        (REAL, "--object-pose (none): --robot ros2 needs seven numbers"),
        ((*REAL, "--object-pose", 2, 0, 0, 0, 0, 0, 0.05), "a unit quaternion wxyz"),
        ((*REAL, *POSE, "--runs", 2), "one run of one object at a time"),
        ((*REAL, *POSE, "--faults", "freeze at=1"), "--faults are the simulated robot's"),
    ],
)
def test_mistakes_end_in_one_line(
    words: tuple[object, ...],
    message: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["robot/execute.py", "--out", str(tmp_path), *map(str, words)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        execute.main()
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().out.split())


class Person(Console):
    """A person at the terminal, who types a word."""

    def __init__(self, word: str) -> None:
        super().__init__(quiet=True)
        self.word = word

    def input(self, *_: object, **__: object) -> str:
        return self.word


@pytest.mark.parametrize(
    ("execute_", "terminal", "word", "moves"),
    [
        (False, True, "move", False),
        (True, False, "move", False),
        (True, True, "", False),
        (True, True, "yes", False),
        (True, True, "MOVE", False),
        (True, True, " move\n", True),
    ],
)
def test_a_real_robot_moves_only_by_the_flag_and_a_typed_word(
    execute_: bool, terminal: bool, word: str, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal, raising=False)
    config = Execute(robot="ros2", execute=execute_)
    assert execute.allowed(config, 20.0, Person(word)) is moves


def test_a_log_is_never_written_over(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mug_0").mkdir()
    (tmp_path / "mug_0" / "log.jsonl").write_text("kept")
    with pytest.raises(ConfigError, match="holds the log of a run; name another folder"):
        execute.run(Execute(out=tmp_path), QUIET)
    assert (tmp_path / "mug_0" / "log.jsonl").read_text() == "kept"
