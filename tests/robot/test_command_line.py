"""The command line, tried in thousands of ways: a real robot is never commanded without --execute.

All of them: `TRIALS=2000 python -m pytest tests/robot/test_command_line.py`.
"""

import contextlib
import os
import pathlib
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from experiments import teleop
from realdex_jax.errors import PhysicsError
from realdex_jax.models.grasp_model import GraspModel
from realdex_jax.models.motion_model import MotionModel
from robot import execute, limits, presets
from robot.drive import Outcome
from robot.executor import Phase
from robot.interface import JointState, RobotError
from robot.preflight import Verdict
from robot.teleop import Sample, TeleopConfig
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
    ("--domain-id", "0"),
    ("--presets", "HOSTILE"),
    ("--presets", "nowhere.toml"),
    ("--cloud", "scan"),
    ("--", "--execute"),
    ("",),
    ("\u2014execute",),
    ("--help",),
)


class StandIn:
    """Whatever answers to a preset: where that is a real robot, it must not be commanded."""

    commanded = 0

    def __init__(self, preset, domain_id=None):
        self.preset, self.domain_id = preset, domain_id

    def is_real(self):
        """Whether one driver on this machine or elsewhere could hear it."""
        beyond = [t for t in self.preset.topics if not t.startswith("/realdex_sim/")]
        return bool(beyond) or not self.preset.local or self.domain_id in (None, 0)

    def wait(self, *_):
        pass

    def state(self):
        now = time.monotonic()
        return JointState(now, now, limits.NAMES, limits.HOME, np.zeros(30))

    def faults(self):
        return ()

    def object_pose(self):
        return None

    def close(self):
        pass

    def send(self, *_):
        StandIn.commanded += self.is_real()

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

    def nothing(*_, **__):
        return None

    for name, value in {
        "load": lambda: hand,
        "chain.seen": lambda *_: None,
        "_clips": lambda *_: [],
        "candidate.first": lambda *_: (chosen, []),
        "simulated.running": lambda *_, **__: contextlib.nullcontext(),
        "candidate.verdict": lambda *_, **__: verdict,
        "Ros2Robot": StandIn,
        "grasp_model.load_model": lambda *_: object.__new__(GraspModel),
        "motion_model.load_model": lambda *_: object.__new__(MotionModel),
        "chain.generated": lambda *_: SimpleNamespace(refined=None),
        "selection.pool": lambda *_: SimpleNamespace(grasps=None),
        "selection.choose": lambda *_: best,
        "schema.take": nothing,
        "motion_chain.reach": lambda *_: (SimpleNamespace(motions=None, lengths=None), None),
        "drive.run": drive,
        "account.save": nothing,
    }.items():
        monkeypatch.setattr(f"robot.execute.{name}", value)
    # The worst that can be: somebody is there, and types the word whatever is asked.
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(Console, "input", lambda *_, **__: execute.WORD)
    monkeypatch.setattr(StandIn, "commanded", 0)
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    return driven


def hostile(folder: pathlib.Path) -> str:
    """A file in which the simulated robot has the real one's names."""
    path = folder / "hostile.toml"
    if not path.exists():
        text = presets.FILE.read_text().replace("/realdex_sim/", "/")
        path.write_text(text)
        assert presets.read("simulated", path).part("arm") == presets.read("shadow_ur10e").part(
            "arm"
        )
    return str(path)


def typed(words, out, monkeypatch, script=execute) -> int | str | None:
    words = [hostile(out) if word == "HOSTILE" else word for word in words]
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *words, "--out", str(out / "out")])
    try:
        script.main()
    except SystemExit as ended:
        return ended.code
    return 0


def real(driven) -> int:
    return sum(robot.is_real() for robot in driven)


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


OF_TELEOP = (
    ("--robot", "shadow_ur10e"),
    ("--robot", "plain_ur"),
    ("--robot", "simulated"),
    ("--robot", "none"),
    ("--robot", "ros2"),
    ("--presets", "HOSTILE"),
    ("--count", "2"),
    ("--speed", "0.5"),
    ("--speed", "7"),
    ("--no-execute",),
    ("--execute=true",),
    ("--exec",),
    ("-e",),
    ("execute",),
    ("--yes",),
    ("--", "--execute"),
    ("",),
)


@pytest.fixture
def followed(hand, monkeypatch: pytest.MonkeyPatch):
    """Teleoperation made quick; and which robots a person was let drive."""
    driven: list[object] = []
    sample = Sample(0.0, q=np.zeros(22))

    def drive(hand, config, samples, robot, *_):
        driven.append(robot)
        return teleop.Timing(np.zeros(1), 1.0, 0, 0, (), np.zeros(2))

    for name, value in {
        "load": lambda _: hand,
        "_source": lambda _: ("hand", TeleopConfig(), [[sample]]),
        "_begin_anew": lambda _: None,
        "drive": drive,
        "Ros2Robot": StandIn,
        "simulated.running": lambda *_, **__: contextlib.nullcontext(),
    }.items():
        monkeypatch.setattr(f"experiments.teleop.{name}", value)
    monkeypatch.setattr(StandIn, "commanded", 0)
    monkeypatch.setattr(sys, "stdin", Anybody())
    return driven


class Anybody:
    """Somebody at the terminal, who types the sentence whatever is asked."""

    terminal = True

    def isatty(self) -> bool:
        return self.terminal

    def readline(self) -> str:
        return teleop.CONFIRMATION + "\n"


def test_no_real_robot_follows_a_hand_without_the_flag(
    followed, rng: np.random.Generator, tmp_path: pathlib.Path, monkeypatch, capsys
) -> None:
    refused = simulated = 0
    for _ in range(TRIALS):
        words = ["--source", "hand.npz"] if rng.random() < 0.9 else []
        for i in rng.permutation(len(OF_TELEOP))[: rng.integers(0, 4)]:
            words += OF_TELEOP[i]
        if rng.random() < 0.5:
            words = [w for w in words if w]
        before = len(followed)
        typed(words, tmp_path, monkeypatch, teleop)
        robots = [robot for robot in followed if robot is not None]
        assert real(robots) == 0, words
        simulated += len(followed) > before
        refused += "add --execute if you mean it" in capsys.readouterr().out
    assert refused > TRIALS / 20
    assert simulated > TRIALS / 20


def test_a_hand_is_followed_with_the_flag_and_the_sentence_of_a_person(
    followed, tmp_path, monkeypatch, capsys
) -> None:
    words = ["--source", "hand.npz", "--robot", "shadow_ur10e", "--execute"]
    monkeypatch.setattr(Anybody, "terminal", False)
    assert typed(words, tmp_path, monkeypatch, teleop) == 2
    assert "nothing moves without a person at the terminal" in capsys.readouterr().out
    assert followed == []
    monkeypatch.setattr(Anybody, "terminal", True)
    assert typed(words, tmp_path, monkeypatch, teleop) == 0
    assert real(followed) == 1


def test_after_a_stop_a_real_robot_follows_only_when_asked_again(
    followed, hand, tmp_path, monkeypatch
) -> None:
    """Three demonstrations, of which the second is stopped; then the sentence is not typed."""
    said = ["", "a fault", "", ""]
    typed_in: list[int] = []

    def drive(*_):
        followed.append(None)
        return teleop.Timing(np.zeros(1), 1.0, 0, 0, (), np.zeros(2), said[len(followed) - 1], True)

    def readline(_):
        typed_in.append(len(followed))
        return teleop.CONFIRMATION + "\n" if len(typed_in) == 1 else "\n"

    monkeypatch.setattr(teleop, "drive", drive)
    monkeypatch.setattr(Anybody, "readline", readline)
    sample = Sample(0.0, q=np.zeros(22))
    source = ("hand", TeleopConfig(), [[sample]] * 3)
    monkeypatch.setattr(teleop, "_source", lambda _: source)
    words = ["--source", "hand.npz", "--robot", "shadow_ur10e", "--execute"]
    assert typed(words, tmp_path, monkeypatch, teleop) == 2
    assert typed_in == [0, 2]
    assert len(followed) == 2


def test_with_the_flag_and_the_word_it_does(stage, tmp_path, monkeypatch, capsys) -> None:
    words = ["--robot", "ros2", "--preset", "shadow_ur10e", "--object-pose", *POSE]
    typed([*words, "--execute"], tmp_path, monkeypatch)
    assert real(stage) == 1
    monkeypatch.setattr(Console, "input", lambda *_, **__: "yes")
    typed([*words, "--execute"], tmp_path, monkeypatch)
    assert real(stage) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--presets", "HOSTILE"), "simulated is no simulated robot: local is true"),
        (("--presets", "nowhere.toml"), "nowhere.toml: No such file"),
        (("--domain-id", "0"), "--domain-id 0 is where other programs of ROS 2 are"),
    ],
)
def test_a_simulated_robot_is_never_looked_for_among_real_ones(
    stage, words, told, tmp_path, monkeypatch, capsys
) -> None:
    assert typed(words, tmp_path, monkeypatch) == 2
    assert told in " ".join(capsys.readouterr().out.split())
    assert stage == []


def test_what_cannot_be_started_keeps_no_other_run_from_its_own(
    stage, tmp_path, monkeypatch
) -> None:
    """Of four runs one is not answered, one's physics breaks, and one breaks when it is over."""
    calls = {"wait": 0, "close": 0, "verdict": 0}

    def counted(name, at, error):
        def call(*_):
            calls[name] += 1
            if calls[name] == at:
                raise error

        return call

    monkeypatch.setattr(StandIn, "wait", counted("wait", 1, RobotError("nobody answers")))
    monkeypatch.setattr(StandIn, "close", counted("close", 4, RobotError("it went away")))
    verdict, broken = (
        execute.candidate.verdict,
        counted("verdict", 2, PhysicsError("it flew apart")),
    )
    monkeypatch.setattr(execute.candidate, "verdict", lambda *_, **__: broken() or verdict())
    runs = execute.run(execute.Execute(runs=4, out=tmp_path, video=False), Console(quiet=True))
    assert [one.ending for one in runs[:1] + runs[2:3]] == ["not started"] * 2
    assert runs[0].reason == "RobotError: nobody answers"
    assert runs[2].reason == "PhysicsError: it flew apart"
    # What was driven is told, though its connection broke when it was let go of.
    assert [one.ending for one in (runs[1], runs[3])] == ["not lifted"] * 2
    assert len(stage) == 2
    assert all(one.confirmed and one.timeline for one in runs)


def test_a_stop_that_was_not_confirmed_is_told_whatever_breaks_after_it(
    stage, tmp_path, monkeypatch, capsys
) -> None:
    def unconfirmed(*_, **__):
        return Outcome(Phase.FAULT, "states stale", False, 1.0, 1)

    def broken(*_):
        raise OSError("no such socket")

    monkeypatch.setattr(execute.drive, "run", unconfirmed)
    monkeypatch.setattr(StandIn, "close", broken)
    assert typed(("--no-video",), tmp_path, monkeypatch) == 3
    assert "STOP NOT CONFIRMED" in capsys.readouterr().out
