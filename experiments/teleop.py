"""A person's hand drives arm and hand: recorded demonstrations replayed at 100 Hz, and recorded.

    python -m experiments.teleop --source door.npz              # onto a simulated robot
    python -m experiments.teleop --source keypoints.npz --robot none    # set points alone: latency
    python -m experiments.teleop --source door.npz --robot shadow_ur10e --execute   # the real robot

A source is the file of door demonstrations (`realdex_jax/data/teleop.py`: a glove's angles and a
tracker at 100 Hz) or an `.npz` with `keypoints` (frames 21 3) of a right hand in metres. What the
robot did is kept with its stamps, sample by sample, and as motions in a dataset under `--out`.
Takes as long as its source.
"""

import collections
import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments import commands
from realdex_jax.data import npz
from realdex_jax.data import teleop as door
from realdex_jax.errors import ConfigError
from realdex_jax.hand import joints
from realdex_jax.hand.load import HandModel, load
from robot import plant, presets, recording, simulated, teleop
from robot.interface import Trajectory
from robot.recording import Recorder
from robot.ros2 import Ros2Robot
from robot.teleop import STEP_S, Sample, TeleopConfig, TeleopState, Watch

CONFIRMATION = "move the robot"
"""What is typed before a real robot moves."""
_FRESH_S = 0.1
"""Nothing is sent while the robot's last state is older."""
_SETTLE_S = 0.5
_STILL = 0.05
"""Radians per second of joints below which the robot counts as holding."""


@dataclasses.dataclass(frozen=True)
class Teleop:
    """Command line of this script."""

    source: Path
    """Door demonstrations or keypoints, `.npz`."""
    robot: str = "simulated"
    """none, simulated, or a preset of a real robot."""
    presets: Path = presets.FILE
    """File of presets."""
    out: Path = Path("runs/teleop")
    """Folder of what is recorded."""
    count: int = 3
    """Demonstrations that are replayed, from the first on."""
    keypoint_rate: float = 30.0
    """Frames a second of keypoints."""
    speed: float = 1.0
    """Speed of the person; half of it gives the arm time to follow a quick one."""
    execute: bool = False
    """Needed, with a typed confirmation, before a real robot moves."""


@dataclasses.dataclass(frozen=True, eq=False)
class Timing:
    """How the samples of one demonstration were served."""

    latency_s: np.ndarray
    """From when a sample was there to when its set points were sent, per sample."""
    seconds: float
    """Of all."""
    skipped: int
    """Samples that were passed over because the next one was there already."""
    waited: int
    """Samples in which the arm waited, having no near solution."""
    held: int
    """Samples in which the robot was held because of a fault or a stale state."""
    faults: tuple[str, ...]
    """What the robot reported."""
    off_rad: np.ndarray
    """Of arm and hand, measured from where they were told to come to rest."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    args = tyro.cli(Teleop, description=__doc__)
    console = Console()
    with commands.ending(console):
        run(args, console)


def run(args: Teleop, console: Console) -> list[Timing]:
    """Replays the demonstrations; returns how each was served.

    Raises:
        RealdexError: A source or a preset that is not what it should be, or a robot that is not
            there.
    """
    hand, name, config, demonstrations = load("shadow"), *_source(args)
    commands.make_folder(args.out)
    timings, kept = [], []
    with _robot(args, console) as robot:
        for samples in demonstrations:
            if robot is not None and robot.preset.orders:
                _begin_anew(robot)
            recorder = Recorder()
            timing = drive(hand, config, samples, robot, recorder, args.speed)
            timings.append(timing)
            if robot is not None:
                for fault, times in collections.Counter(timing.faults).most_common(5):
                    console.print(f"robot: {fault} ({times})", style="yellow", markup=False)
                whole = recorder.recording()
                recording.save(args.out / f"{name}_{len(kept):02d}.npz", whole)
                kept.append(recording.to_motion(whole))
    if kept:
        folder = args.out / "dataset"
        recording.store(folder, kept, [name] * len(kept), commands.line())
        console.print(f"{len(kept)} motions in {folder}, with all samples beside it")
    console.print(_table(timings))
    return timings


def drive(
    hand: HandModel,
    config: TeleopConfig,
    samples: Sequence[Sample],
    robot: Ros2Robot | None,
    recorder: Recorder,
    speed: float = 1.0,
) -> Timing:
    """Serves one demonstration in time; a sample that is late is passed over for the next.

    Args:
        hand: The robot's hand.
        config: How the person is followed.
        samples: One every `STEP_S` of the person's time.
        robot: What is driven; without one only set points are made.
        recorder: Takes what the robot did.
        speed: Of the person.
    """
    q = plant.home()
    if robot is not None:
        state = robot.state()
        if state is None:
            raise ConfigError("no state of the robot; it must be there before a demonstration")
        q = state.q[[state.names.index(n) for n in teleop.NAMES]]
    now = teleop.init(hand, config, q, samples[0])
    latency: list[float] = []
    waited = skipped = held = k = 0
    faults: list[str] = []
    watch = Watch()
    steps = int((len(samples) - 1) / speed) + 1
    begun = time.perf_counter()
    while k < steps:
        due = begun + k * STEP_S
        time.sleep(max(due - time.perf_counter(), 0.0))
        sample = samples[int(k * speed)]
        if robot is not None:
            said = robot.faults()
            faults += said
            now, watch = _served(robot, now, watch, bool(said))
        if watch.phase != "going":
            held += 1
        else:
            now, followed = teleop.step(hand, config, now, sample)
            trajectory = teleop.command(config, now)
            if robot is not None:
                robot.send(trajectory)
            latency.append(time.perf_counter() - due)
            waited += sample.wxyz_xyz_tracker is not None and not bool(followed.reached)
        if robot is not None and (state := robot.state()) is not None:
            seen = robot.object_pose()
            recorder.add(
                time.monotonic(), np.asarray(now.q), state, None if seen is None else seen[0]
            )
        late = max(int((time.perf_counter() - due) / STEP_S), 0)
        skipped += late
        k += 1 + late
    seconds = time.perf_counter() - begun
    off = np.full(2, np.nan)
    if robot is not None:
        time.sleep(_SETTLE_S)
        state = robot.state()
        if state is not None:
            miss = state.q - teleop.command(config, now).q[-1]
            for (
                j2,
                j1,
            ) in joints.COUPLED:  # one tendon: how a pair shares its sum is the hand's matter
                miss[8 + j2], miss[8 + j1] = miss[8 + j2] + miss[8 + j1], 0.0
            off = np.array([np.abs(miss[:6]).max(), np.abs(miss[6:]).max()])
    return Timing(np.array(latency), seconds, skipped, waited, held, tuple(faults), off)


def _begin_anew(robot: Ros2Robot) -> None:
    """Puts a simulated robot and its object where they began."""
    robot.order("reset")
    time.sleep(_SETTLE_S)
    robot.faults()


def _served(
    robot: Ros2Robot, now: TeleopState, before: Watch, faulty: bool
) -> tuple[TeleopState, Watch]:
    """Stops the robot on a fault or a stale state, and lets it go on when that is over."""
    state = robot.state()
    stale = state is None or time.monotonic() - state.received_s > _FRESH_S
    still = state is not None and bool(np.abs(state.qd).max() < _STILL)
    watch, action = teleop.watch(before, time.monotonic(), faulty=faulty or stale, still=still)
    if action == "stop":
        robot.stop()
    elif action == "settle" and state is not None:
        at, rest = np.array([teleop.SETTLE_S / 2]), np.zeros((1, len(state.q)))
        robot.send(Trajectory(state.names, at, state.q[None], rest))
    elif action == "resume" and state is not None:
        now = teleop.resume(now, state.q)
    return now, watch


def _source(args: Teleop) -> tuple[str, TeleopConfig, list[list[Sample]]]:
    if args.count < 1 or not 0.05 <= args.speed <= 2.0:
        raise ConfigError(f"--count {args.count} is at least 1, --speed {args.speed} 0.05 to 2")
    if not args.source.is_file():
        raise ConfigError(f"--source {args.source}: no such file")
    arrays = npz.read(args.source)
    if "keypoints" in arrays:
        samples = teleop.of_keypoints(np.asarray(arrays["keypoints"]), args.keypoint_rate)
        return "free_hand", TeleopConfig(), [samples]
    motions = door.read_adroit(args.source)[: args.count]
    # The demonstrator faced +y, the arm faces +x.
    config = TeleopConfig(yaw=-np.pi / 2)
    return "door_handle", config, [teleop.of_motion(motion) for motion in motions]


@contextlib.contextmanager
def _robot(args: Teleop, console: Console) -> Iterator[Ros2Robot | None]:
    """The robot, confirmed, connected, and let go of in the end."""
    if args.robot == "none":
        yield None
        return
    preset = presets.read(args.robot, args.presets)
    with contextlib.ExitStack() as stack:
        domain = None
        if args.robot == "simulated":
            domain = simulated.free_domain()
            stack.enter_context(simulated.running("--preset", args.robot, domain_id=domain))
        else:
            _confirm(args, console)
        robot = Ros2Robot(preset, domain)
        stack.callback(robot.close)
        robot.wait()
        yield robot


def _confirm(args: Teleop, console: Console) -> None:
    if not args.execute:
        raise ConfigError(f"--robot {args.robot} moves a real robot: add --execute if you mean it")
    console.print(
        f"{args.robot}: arm and hand will follow at once. Keep clear, hold the emergency stop.\n"
        f"Type '{CONFIRMATION}' to go on: ",
        end="",
    )
    if sys.stdin.readline().strip() != CONFIRMATION:
        raise ConfigError("not confirmed; nothing was moved")


def _table(timings: Sequence[Timing]) -> Table:
    table = Table(title="Teleoperation")
    for title in (
        *("samples/s", "latency ms: median", "99 %"),
        *("skipped", "held", "arm waited", "off mrad"),
    ):
        table.add_column(title, justify="right")
    for timing in timings:
        latency = timing.latency_s if len(timing.latency_s) else np.array([np.nan])
        middle, most = np.percentile(latency, [50, 99]) * 1e3
        off = " / ".join(f"{1e3 * x:.0f}" for x in timing.off_rad)
        table.add_row(
            f"{(len(timing.latency_s) + timing.held) / timing.seconds:.1f}",
            f"{middle:.2f}",
            f"{most:.2f}",
            str(timing.skipped),
            str(timing.held),
            str(timing.waited),
            off,
        )
    return table


if __name__ == "__main__":
    main()
