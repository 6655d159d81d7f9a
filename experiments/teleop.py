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
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments import commands
from realdex_jax.data import npz
from realdex_jax.data import teleop as door
from realdex_jax.errors import ConfigError, RealdexError
from realdex_jax.hand.load import HandModel, load
from robot import executor, limits, plant, presets, recording, simulated, supervision, teleop
from robot.client import Ros2Robot
from robot.executor import Inputs, Phase
from robot.recording import Recorder
from robot.supervision import Supervised, SupervisionConfig
from robot.teleop import STEP_S, Sample, TeleopConfig, TeleopState

CONFIRMATION = "move the robot"
"""What is typed before a real robot moves, and before it goes on after a stop."""
_SETTLE_S = 0.7
"""Seconds in which the brake behind the last command ends ..."""
_CREEP_S = 2.5
"""... and in which fingers come to rest, too, which creep for a second."""
_ENGAGE_S = 3.0
"""Most seconds until joint states show a robot that stands and may be driven."""
_GIVE_UP_S = 3.0
"""Seconds after which a stop is no longer waited for."""


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
    faults: tuple[str, ...]
    """What the robot reported."""
    off_rad: np.ndarray
    """Of arm and hand, measured from where they were told to come to rest."""
    reason: str = ""
    """Why it ended before its end; empty where it did not."""
    confirmed: bool = True
    """Whether joint states show that the robot stands in the end."""
    cancelled: bool = False
    """Whether the operator ended it."""

    @property
    def rate(self) -> float:
        """Samples served per second."""
        return len(self.latency_s) / max(self.seconds, STEP_S)

    def text(self) -> str:
        """Why it ended, for a person; a stop that is not confirmed is loud."""
        if self.confirmed:
            return self.reason
        banner = "!" * 72
        return f"{banner}\n{executor.NOT_CONFIRMED}\n{self.reason}\n{banner}"


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    args = tyro.cli(Teleop, description=__doc__)
    console = Console()
    with commands.ending(console):
        timings = run(args, console)
    if not all(timing.confirmed for timing in timings):
        sys.exit(3)
    sys.exit(int(any(timing.reason for timing in timings)))


def run(args: Teleop, console: Console) -> list[Timing]:
    """Replays the demonstrations; returns how each was served.

    After a stop nothing moves by itself: a simulated robot is put where it began, a real one goes
    on with the next demonstration when the sentence is typed again, and after a stop that was not
    confirmed not at all.

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
            elif robot is not None and timings and timings[-1].reason:
                _confirm(args, console)
            recorder = Recorder()
            timing = drive(hand, config, samples, robot, recorder, args.speed)
            timings.append(timing)
            if len(recorder):
                whole = recorder.recording()
                recording.save(args.out / f"{name}_{len(timings) - 1:02d}.npz", whole)
                with contextlib.suppress(RealdexError):  # one that was stopped may be too short
                    kept.append(recording.to_motion(whole))
            for fault, times in collections.Counter(timing.faults).most_common(5):
                console.print(f"robot: {fault} ({times})", style="yellow", markup=False)
            if timing.reason:
                console.print(timing.text(), style="yellow", highlight=False, markup=False)
            if timing.cancelled or not timing.confirmed:
                break
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
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Timing:
    """Serves one demonstration in time; a sample that is late is passed over for the next.

    A robot is watched by `robot/supervision.py`, and stopped at the first doubt, in the end, by
    Ctrl-C as often as it comes, and by whatever is raised here; then it is driven no more. It comes
    back when joint states show that the robot stands, or that cannot be shown.

    Args:
        hand: The robot's hand.
        config: How the person is followed.
        samples: One every `STEP_S` of the person's time.
        robot: What is driven; without one only set points are made.
        recorder: Takes what the robot did.
        speed: Of the person.
        clock: Monotonic seconds, the clock of `JointState.received_s`.
        sleep: Waits for so many seconds.
    """
    steps = int((len(samples) - 1) / speed) + 1
    # Compiles what takes longer than a joint state may be old.
    now = teleop.init(hand, config, plant.home(), samples[0])
    teleop.step(hand, config, now, samples[0])
    if robot is None:
        return _set_points(hand, config, samples, now, speed, steps, clock, sleep)
    guard, why = _engaged(robot, clock, sleep)
    if why:
        return Timing(np.zeros(0), 0.0, 0, 0, (), np.full(2, np.nan), f"not begun: {why}")
    assert guard.stop.seen is not None
    now = teleop.begin(now, guard.stop.seen.q)
    gc.freeze()  # a collection of all that is in memory lasts longer than a state may be old
    latency: list[float] = []
    faults: list[str] = []
    pending: list[str] = []
    waited = skipped = k = 0
    off, cancelled, done = np.full(2, np.nan), "", False
    begun = sent_s = served_s = clock()
    while True:
        try:
            due = begun + k * STEP_S
            sleep(max(due - clock(), 0.0))
            guard, said = _watched(robot, guard, pending, cancelled, clock)
            faults += said
            if guard.ended or (clock() - guard.stop.asked_s > _GIVE_UP_S and not guard.going):
                break
            if guard.going and k < steps:
                sample = samples[int(k * speed)]
                now = teleop.late(config, now, clock() - sent_s) if latency else now
                now, followed = teleop.step(hand, config, now, sample)
                trajectory = teleop.command(config, now)
                sent_s = clock()
                robot.send(trajectory)
                guard = supervision.sent(guard, sent_s, trajectory)
                served_s = clock()
                latency.append(served_s - due)
                waited += sample.wxyz_xyz_tracker is not None and not bool(followed.reached)
            elif guard.going and _settled(guard, clock() - sent_s):
                done, cancelled = True, cancelled or "the end of the demonstration"
                off = _off(robot, teleop.command(config, now).q[-1])
            if k < steps:
                _record(recorder, robot, np.asarray(now.q), clock())
            late = max(int((clock() - due) / STEP_S), 0)
            skipped += min(late, max(steps - k - 1, 0))
            k += 1 + late
        except KeyboardInterrupt:
            cancelled = "the operator (Ctrl-C)"
        except Exception as error:
            pending.append(f"{type(error).__name__}: {error}")
    gc.unfreeze()
    stop = guard.stop
    completed = done and stop.phase is Phase.IDLE and not cancelled.startswith("the operator")
    return Timing(
        np.array(latency),
        max(served_s - begun, STEP_S),
        skipped,
        waited,
        tuple(faults),
        off,
        "" if completed else stop.reason,
        stop.phase is Phase.IDLE or stop.confirmed,
        cancelled.startswith("the operator"),
    )


def _set_points(
    hand: HandModel,
    config: TeleopConfig,
    samples: Sequence[Sample],
    now: TeleopState,
    speed: float,
    steps: int,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Timing:
    """Set points alone, in time."""
    latency: list[float] = []
    waited = skipped = k = 0
    begun = clock()
    while k < steps:
        due = begun + k * STEP_S
        sleep(max(due - clock(), 0.0))
        sample = samples[int(k * speed)]
        now, followed = teleop.step(hand, config, now, sample)
        teleop.command(config, now)
        latency.append(clock() - due)
        waited += sample.wxyz_xyz_tracker is not None and not bool(followed.reached)
        late = max(int((clock() - due) / STEP_S), 0)
        skipped += min(late, steps - k - 1)
        k += 1 + late
    off = np.full(2, np.nan)
    return Timing(np.array(latency), clock() - begun, skipped, waited, (), off)


def _engaged(
    robot: Ros2Robot, clock: Callable[[], float], sleep: Callable[[float], None]
) -> tuple[Supervised, str]:
    """Leave to drive, as soon as joint states allow it; or why they do not."""
    guard, end = Supervised(), clock() + _ENGAGE_S
    while True:
        inputs = Inputs(clock(), robot.state(), robot.faults())
        guard, why = supervision.engage(guard, inputs)
        if not why or clock() > end:
            return guard, why
        sleep(STEP_S)


def _watched(
    robot: Ros2Robot,
    guard: Supervised,
    pending: list[str],
    cancelled: str,
    clock: Callable[[], float],
) -> tuple[Supervised, list[str]]:
    """One step of the supervision, and its stops; what the client raises is a fault, too."""
    said, joint = list(pending), None
    pending.clear()
    try:
        joint = robot.state()
        said += robot.faults()
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
    guard, commands = supervision.step(guard, Inputs(clock(), joint, tuple(said), cancel=cancelled))
    for _ in commands:
        try:
            robot.stop()
        except Exception as error:
            pending.append(f"{type(error).__name__}: {error}")
    return guard, said


def _settled(guard: Supervised, since_s: float) -> bool:
    """Whether the joints rest so long after the last command, or it has been long enough."""
    seen, still = guard.stop.seen, SupervisionConfig().executor.still_rate
    rests = seen is not None and bool((np.abs(seen.qd) < still).all())
    return since_s > _SETTLE_S and (rests or since_s > _CREEP_S)


def _record(recorder: Recorder, robot: Ros2Robot, q_wanted: np.ndarray, now_s: float) -> None:
    state, seen = robot.state(), robot.object_pose()
    if state is not None:
        recorder.add(now_s, q_wanted, state, None if seen is None else seen[0])


def _off(robot: Ros2Robot, q_end: np.ndarray) -> np.ndarray:
    """How far (rad) arm and hand are from where they should rest."""
    state = robot.state()
    if state is None:
        return np.full(2, np.nan)
    # One tendon drives two joints of a finger: how they share its way is the hand's matter.
    miss = np.abs(limits.DRIVEN @ (state.q - q_end))
    return np.array([miss[limits.ARM].max(), miss[limits.ARM.stop :].max()])


def _begin_anew(robot: Ros2Robot) -> None:
    """Puts a simulated robot and its object where they began."""
    robot.order("reset")
    time.sleep(_SETTLE_S)
    robot.faults()


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
    is_simulated = args.robot == "simulated"
    read = presets.read_simulated if is_simulated else presets.read
    preset = read(args.robot, args.presets)
    with contextlib.ExitStack() as stack:
        domain = None
        if is_simulated:
            domain = simulated.free_domain()
            words = ("--presets", str(args.presets))
            stack.enter_context(simulated.running(*words, domain_id=domain))
        else:
            _confirm(args, console)
        robot = Ros2Robot(preset, domain)
        stack.callback(robot.close)
        robot.wait()
        yield robot


def _confirm(args: Teleop, console: Console) -> None:
    if not args.execute:
        raise ConfigError(f"--robot {args.robot} moves a real robot: add --execute if you mean it")
    if not sys.stdin.isatty():
        raise ConfigError("nothing moves without a person at the terminal")
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
        *("skipped", "arm waited", "off mrad"),
    ):
        table.add_column(title, justify="right")
    for timing in timings:
        latency = timing.latency_s if len(timing.latency_s) else np.array([np.nan])
        middle, most = np.percentile(latency, [50, 99]) * 1e3
        off = " / ".join(f"{1e3 * x:.0f}" for x in timing.off_rad)
        table.add_row(
            f"{timing.rate:.1f}",
            f"{middle:.2f}",
            f"{most:.2f}",
            str(timing.skipped),
            str(timing.waited),
            off,
        )
    return table


if __name__ == "__main__":
    main()
