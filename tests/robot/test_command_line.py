"""The command line, tried in thousands of ways: a real robot is never commanded without --execute.

All of them: `TRIALS=2000 python -m pytest tests/robot/test_command_line.py`.
"""

import contextlib
import os
import pathlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.models.motion_model import MotionModel
from robot import execute, limits
from robot.drive import Outcome
from robot.executor import Phase
from robot.interface import JointState
from robot.preflight import Verdict
from robot.trial import motion
from sim import objects

TRIALS = int(os.environ.get("TRIALS", "200"))
POSE = ("1", "0", "0", "0", "0", "0", "0.05")
# Words that a person may type: good ones, bad ones, and near misses of the flag.
OPTIONS = (
    ("--robot", "ros2"),
    ("--robot", "simulated"),
    ("--robot=ros2",),
    ("--robot", "real"),
    ("--preset", "shadow_ur10e"),
    ("--preset", "simulated"),
    ("--preset", "plain_ur"),
    ("--preset", "execute"),
    ("--object-pose", *POSE),
    ("--object-pose", *POSE[:3]),
    ("--object-pose", "nan", *POSE[1:]),
    ("--object", "mug"),
    ("--object", "mug", "box"),
    ("--object", "execute"),
    ("--runs", "1"),
    ("--runs", "3"),
    ("--seed", "7"),
    ("--count", "0"),
    ("--top", "2"),
    ("--speed", "0.5"),
    ("--speed", "9"),
    ("--guarded",),
    ("--no-guarded",),
    ("--no-video",),
    ("--no-execute",),
    ("--execute=true",),
    ("--execute=1",),
    ("--exec",),
    ("--e",),
    ("--EXECUTE",),
    ("-execute",),
    ("-e",),
    ("execute",),
    ("--run", "execute"),
    ("--move",),
    ("--yes",),
    ("-y",),
    ("--force",),
    ("--faults", "freeze at=1"),
    ("--domain-id", "7"),
    ("--cloud", "scan"),
    ("--", "--execute"),
    ("",),
    ("\u2014execute",),
    ("--help",),
)


class StandIn:
    """A real robot that must not be commanded."""

    commanded = 0

    def __init__(self, *_):
        pass

    def wait(self, *_):
        pass

    def state(self):
        now = execute.time.monotonic()
        return JointState(now, now, limits.NAMES, limits.HOME, np.zeros(30))

    def faults(self):
        return ()

    def object_pose(self):
        return None

    def close(self):
        pass

    def send(self, *_):
        StandIn.commanded += 1

    order = stop = send


@pytest.fixture
def stage(hand, monkeypatch: pytest.MonkeyPatch):
    """Everything before and after the question whether it may move, made quick; and who drove."""
    driven: list[object] = []
    verdict = Verdict("digest", (), None, 0.0)
    chosen = execute.Chosen(objects.make("mug"), np.eye(7)[0], motion(), verdict)
    best = SimpleNamespace(best=[0], scores=[SimpleNamespace(explanation="")])

    def drive(robot, *_, **__):
        driven.append(robot)
        return Outcome(Phase.HOLDING, "", True, 1.0, 1)

    @contextlib.contextmanager
    def simulated(*_):
        yield SimpleNamespace(state=StandIn().state, object_pose=lambda: None)

    def nothing(*_, **__):
        return None

    for name, value in {
        "load": lambda: hand,
        "chain.seen": lambda *_: None,
        "_clips": lambda *_: [],
        "_first": lambda *_: (chosen, []),
        "_simulated": simulated,
        "_verdict": lambda *_: verdict,
        "Ros2Robot": StandIn,
        "grasp_model.load_model": lambda *_: object.__new__(GraspModel),
        "motion_model.load_model": lambda *_: object.__new__(MotionModel),
        "chain.generated": lambda *_: SimpleNamespace(refined=None),
        "selection.pool": lambda *_: SimpleNamespace(grasps=None),
        "selection.choose": lambda *_: best,
        "schema.take": nothing,
        "motion_chain.reach": lambda *_: (None, None),
        "drive.run": drive,
        "account.save": nothing,
    }.items():
        monkeypatch.setattr(f"robot.execute.{name}", value)
    # The worst that can be: somebody is there, and types the word whatever is asked.
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(Console, "input", lambda *_, **__: execute.WORD)
    monkeypatch.setattr(StandIn, "commanded", 0)
    return driven


def typed(words, out, monkeypatch) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["robot/execute.py", *words, "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        execute.main()
    return ended.value.code


def real(driven) -> int:
    return sum(isinstance(robot, StandIn) for robot in driven)


def test_nothing_moves_without_the_flag(
    stage, rng: np.random.Generator, tmp_path: pathlib.Path, monkeypatch, capsys
) -> None:
    asked = {"refused": 0, "simulated": 0}
    for _ in range(TRIALS):
        words: list[str] = []
        if rng.random() < 0.5:  # half of them are complete, so that they come to the question
            words += ["--robot", "ros2", "--preset", "shadow_ur10e", "--object-pose", *POSE]
        for i in rng.permutation(len(OPTIONS))[: rng.integers(0, 5)]:
            words += OPTIONS[i]
        if rng.random() < 0.5:
            words = [w for w in words if w]
        before = len(stage)
        typed(words, tmp_path, monkeypatch)
        assert real(stage) == 0, words
        assert StandIn.commanded == 0, words
        asked["simulated"] += len(stage) > before
        asked["refused"] += "nothing moves without --execute" in capsys.readouterr().out
    # The trial means something only if many came so far, and the rest of the line works.
    assert asked["refused"] > TRIALS / 10
    assert asked["simulated"] > TRIALS / 50


def test_with_the_flag_and_the_word_it_does(stage, tmp_path, monkeypatch, capsys) -> None:
    words = ["--robot", "ros2", "--preset", "shadow_ur10e", "--object-pose", *POSE]
    typed([*words, "--execute"], tmp_path, monkeypatch)
    assert real(stage) == 1
    monkeypatch.setattr(Console, "input", lambda *_, **__: "yes")
    typed([*words, "--execute"], tmp_path, monkeypatch)
    assert real(stage) == 1
