"""Faults on trial: a short motion is driven again and again while something goes wrong.

    python -m robot.trial                                # every fault, 20 seeds, virtual time
    python -m robot.trial --faults "joint states frozen" "operator cancels" --seeds 100
    python -m robot.trial --ros                          # five of them over ROS 2, in real time

Each run is judged (`robot/judging.py`) by what was really sent and by the joints' true course:
nothing without a fresh state, within all limits, without steps, ending at rest; nothing after the
stop; a stop that is confirmed is true, one that is not is loud; the end is defined and has its
reason. Writes `out/results.json` and `out/report.html`; the exit code is 1 if any run was unsafe.

Without ROS 2 the client is the real one and the robot the simulated one, with ideal joints; the
network and time are virtual (`robot/virtual.py`). With `--ros` the robot is a process of its own.
Takes minutes on 2 cores; with --ros half a minute a run.
"""

import contextlib
import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments import commands
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import page
from robot import cases, curve, drive, judging, limits, presets, simulated, trial_page
from robot.cases import Case
from robot.client import Ros2Robot
from robot.drive import Outcome
from robot.executor import Order, Phase, State
from robot.interface import JointState, RobotError, Trajectory
from robot.judging import Course, Judged, Sent, Stopped
from robot.machine import Machine
from robot.plan import Plan
from robot.plant import Kinematic
from robot.preflight import Verdict
from robot.virtual import HEARTBEAT_S, VirtualNetwork

_AFTER_S = 1.0
"""Seconds a robot is watched after a run."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """Command line of this script."""

    faults: tuple[str, ...] = ("all",)
    """Names of `robot/cases.py`, or all; over ROS 2 five of them."""
    seeds: int = 20
    """Runs of each: when it strikes, and which joint."""
    seed: int = 0
    """The first of them."""
    ros: bool = False
    """Over ROS 2 on this machine, in real time, beside a simulated robot's process."""
    out: Path = Path("runs/trial")
    """Folder of `results.json`."""


_STRIKES = (0.01, 0.8)
"""Between which shares of the plan's time a fault strikes."""
_CANCELLED = ("cancel", "stop raises", "arm stop raises")


class Killed(BaseException):
    """The client is gone as by kill -9: nothing of it runs any more."""


class Client:
    """A robot as its client has it: what is sent is kept, and the fault strikes at its time."""

    def __init__(
        self,
        robot: Ros2Robot,
        case: Case,
        rng: np.random.Generator,
        plan: Plan,
        clock: Callable[[], float],
    ) -> None:
        """Strikes at a time drawn from the first four fifths of the plan."""
        self.robot, self.case, self._clock = robot, case, clock
        self.at_s = float(rng.uniform(*_STRIKES) * plan.trajectory.t[-1])
        self._joint = limits.NAMES[int(rng.integers(len(limits.NAMES)))]
        self.sent: list[Sent] = []
        self.stops: list[Stopped] = []
        self.struck: float | None = None
        """When it struck."""
        self.asked: float | None = None
        """When a stop was first asked for."""
        self.stood: tuple[float, bool] | None = None
        """When the stop was over, and whether it was confirmed by then."""
        self.on_strike: Callable[[], None] | None = None
        """What else happens then."""
        self._raised = 0
        self._given: JointState | None = None

    def _client(self, *kinds: str) -> bool:
        return self.struck is not None and self.case.client in kinds

    def state(self) -> JointState | None:
        """As `Robot` says."""
        now = self._clock()
        if self.struck is None and self.sent and now - self.sent[0].at_s >= self.at_s:
            self.struck = now
            for order in self.case.orders:
                self.robot.order(order.format(joint=self._joint))
            if self.on_strike is not None:
                self.on_strike()
        if self._client("killed"):
            raise Killed
        if self._client("raises"):
            raise OSError("socket closed")
        if self._client("ctrl-c") and self._raised < 2:
            self._raised += 1
            raise KeyboardInterrupt
        self._given = self.robot.state()
        return self._given

    def faults(self) -> tuple[str, ...]:
        """As `Robot` says."""
        return self.robot.faults()

    def send(self, trajectory: Trajectory) -> tuple[Trajectory, ...]:
        """As `Robot` says."""
        now = self._clock()
        age_s = now - self._given.received_s if self._given else math.inf
        self.sent.append(Sent(now, trajectory, age_s))
        return self.robot.send(trajectory)

    def stop(self) -> tuple[Trajectory, ...]:
        """As `Robot` says."""
        now = self._clock()
        self.asked = now if self.asked is None else self.asked
        if self._client("stop raises"):
            raise RobotError("the stop cannot be sent")
        published = self.robot.stop()
        self.stops.append(Stopped(now, published))
        return published

    def close(self) -> None:
        """As `Robot` says."""
        self.robot.close()

    def cancel(self) -> str:
        """Who cancels, for `drive.run`."""
        return "the operator" if self._client(*_CANCELLED) else ""

    def on_phase(self, state: State) -> None:
        """Takes down when a stop is over, for `drive.run`."""
        if self.asked is not None and state.phase in (Phase.IDLE, Phase.FAULT):
            self.stood = self._clock(), state.confirmed

    def late_s(self) -> float:
        """How much longer than asked the client sleeps."""
        if self._client("late") and not self._raised:
            self._raised = 1
            return 0.4
        return 0.0


def motion() -> Plan:
    """A short reach, squeeze and lift from `limits.HOME`, at 50 Hz.

    In the reach and in the lift all joints of the arm are at the greatest speed of a plan.
    """
    top = limits.STOP_RATE[limits.ARM] / 1.875  # of minimum jerk, whose peak is 1.875 of the mean
    goals = np.stack([limits.HOME] * 5)
    goals[1:, limits.ARM] += 2.2 * top * [1, 1, -1, 1, 1, -1]
    goals[2:, limits.HAND] = 0.3 * limits.UPPER[limits.HAND].clip(0.0, 1.0)
    goals[3:, limits.ARM] += 1.0 * top * [-1, -1, 1, 1, -1, 1]
    ends = np.cumsum([2.2, 0.8, 1.0, 0.4])
    t = np.linspace(0.0, ends[-1], round(50 * ends[-1]) + 1)
    begins = np.append(0.0, ends[:-1])
    i = np.minimum(np.searchsorted(ends, t, side="right"), len(ends) - 1)
    lasts = (ends - begins)[i]
    u = np.clip((t - begins[i]) / lasts, 0.0, 1.0)
    way = goals[i + 1] - goals[i]
    share, rate = u**3 * (10 - 15 * u + 6 * u**2), 30 * u**2 * (1 - u) ** 2 / lasts
    q, qd = goals[i] + share[:, None] * way, rate[:, None] * way
    return Plan(Trajectory(limits.NAMES, t, q, qd), tuple(ends.tolist()), 0)


def order(plan: Plan, case: Case, now_s: float) -> Order:
    """Leave to drive a plan, given now or, where the case says so, too long ago."""
    made_s = now_s - (2.5 if case.client == "stale" else 0.0)
    return Order(plan, Verdict(curve.digest(plan.trajectory), (), None, made_s))


def judge(
    client: Client,
    seed: int,
    outcome: Outcome | None,
    course: Course,
    end_s: float,
    *,
    exact: bool,
    held_s: float = math.inf,
) -> Judged:
    """One run.

    Args:
        client: The client, with what it sent.
        seed: Of the run.
        outcome: What it says; None where it was killed.
        course: The joints' true course.
        end_s: When the run ended.
        exact: Whether the course has the times of the client, so that accelerations and stops can
            be judged.
        held_s: When the robot held by itself.
    """
    case, struck, asked, stood = client.case, client.struck, client.asked, client.stood
    wrong = judging.of_sent(client.sent)
    wrong += judging.of_course(
        course,
        steps=case.any_start,
        own=exact and case.own,
        braking_s=min(held_s, math.inf if asked is None else asked),
    )
    if exact:
        wrong += judging.of_stops(client.stops, course, follows=case.follows)
    if outcome is not None:
        wrong += judging.of_end(case, outcome, course, end_s)
    if asked is not None and client.sent and client.sent[-1].at_s > asked + 1e-9:
        wrong.append("a command to move was sent after the stop")
    confirmed_s = None
    if asked is not None and outcome is not None and outcome.confirmed:
        confirmed_s = (stood[0] if stood and stood[1] else end_s) - asked
        loud = "NOT CONFIRMED" in outcome.reason
        # The loop sees it up to two of its steps later.
        if confirmed_s > judging.SHOWN_S + 0.02 and not loud:
            wrong.append(f"a stop took {confirmed_s:.2f} s and nobody was told")
    since = struck if asked is None else asked
    if outcome is not None and outcome.completed:
        since = None
    return Judged(
        case.name,
        seed,
        "killed" if outcome is None else str(outcome.phase),
        "" if outcome is None else outcome.reason,
        outcome is not None and outcome.confirmed,
        tuple(wrong),
        client.at_s,
        asked - struck if asked is not None and struck is not None and asked >= struck else None,
        None if since is None else judging.stood_after(course, since),
        confirmed_s,
        judging.arm_share(client.sent),
    )


def in_virtual_time(case: Case, seed: int, plan: Plan) -> Judged:
    """One run with a network and a time of its own."""
    rng = np.random.default_rng([seed, *case.name.encode()])
    # As of a robot elsewhere: whose clock is this machine's is not asked.
    preset = dataclasses.replace(presets.read("simulated"), local=False)
    plant = Kinematic(limits.HOME)
    machine = Machine(preset, plant, (), seed, any_start=case.any_start)
    network = VirtualNetwork(machine, latency_s=float(rng.uniform(0.0005, 0.006)))
    theirs = presets.read("plain_ur").parts if case.client == "names" else preset.parts
    robot = Ros2Robot(dataclasses.replace(preset, parts=theirs), network=network)
    client = Client(robot, case, rng, plan, network)
    fast_s = -0.3 if seed % 2 else 0.3

    def strike() -> None:
        if case.client == "clock jumps":
            network.clock_off_s = fast_s
        elif case.client == "arm stop raises":
            network.failing = frozenset({preset.part("arm").topic})

    client.on_strike = strike
    network.sleep(0.3)
    if case.client == "clock":
        network.clock_off_s = fast_s
    outcome = None
    with contextlib.suppress(Killed):
        outcome = drive.run(
            client,
            order(plan, case, network()),
            State(),
            cancel=client.cancel,
            on_phase=client.on_phase,
            clock=network,
            sleep=lambda seconds: network.sleep(seconds + client.late_s()),
        )
    network.mute = outcome is None
    end_s = network()
    network.sleep(_AFTER_S)
    t, q, qd = zip(*network.course, strict=True)
    course = Course(np.array(t), np.array(q), np.array(qd))
    return judge(client, seed, outcome, course, end_s, exact=True, held_s=network.held_s)


def over_ros(
    wanted: Sequence[tuple[Case, int]], plan: Plan, told: Callable[[], None]
) -> list[Judged]:
    """Runs over ROS 2, in real time, one after the other.

    Raises:
        RobotError: ROS 2 is not here, or the simulated robot does not start.
    """
    preset, domain_id = presets.read("simulated"), simulated.free_domain()
    start = dict(zip(limits.NAMES, limits.HOME.tolist(), strict=True))
    ended: list[tuple[Client, int, Outcome, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "course.npz"
        words = ("--plant", "kinematic", "--course", str(file), "--heartbeat-s", str(HEARTBEAT_S))
        with (
            simulated.running(*words, domain_id=domain_id, start=start),
            contextlib.closing(Ros2Robot(preset, domain_id)) as robot,
        ):
            robot.wait(30.0)
            for case, seed in wanted:
                began = _at_home(robot)
                rng = np.random.default_rng([seed, *case.name.encode()])
                client = Client(robot, case, rng, plan, time.monotonic)
                outcome = drive.run(
                    client,
                    order(plan, case, time.monotonic()),
                    State(),
                    cancel=client.cancel,
                    on_phase=client.on_phase,
                )
                ended.append((client, seed, outcome, began, time.monotonic()))
                time.sleep(_AFTER_S)
                told()
        with np.load(file, allow_pickle=False) as found:
            # The course has the system's clock, the client the monotonic one.
            t = found["t"] - (time.time() - time.monotonic())
            q, qd = found["q"], found["qd"]
    judged = []
    for client, seed, outcome, began, end_s in ended:
        rows = (t > began) & (t < end_s + 0.9 * _AFTER_S)
        course = Course(t[rows], q[rows], qd[rows])
        judged.append(judge(client, seed, outcome, course, end_s, exact=False))
    return judged


def _at_home(robot: Ros2Robot) -> float:
    """Ends all faults, and waits until the robot stands at its start; the time then."""
    robot.order("reset")
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        time.sleep(0.1)
        state = robot.state()
        if state is None or time.monotonic() - state.received_s > 0.05:
            continue
        there = np.abs(state.q - limits.HOME).max() < 1e-5 and not state.qd.any()
        if there and not robot.faults():
            return time.monotonic()
    raise RobotError("the simulated robot does not go back to its start")


def summary(judged: Sequence[Judged]) -> list[dict[str, object]]:
    """One row for each fault: runs, unsafe ones, ends, and medians and worst of its times (s).

    `at_rest` and `confirmed` count stops whose joints stood, or were seen to stand, in time.
    """
    rows = []
    for name in dict.fromkeys(one.fault for one in judged):
        of = [one for one in judged if one.fault == name]
        row: dict[str, object] = {"fault": name, "runs": len(of)}
        row["unsafe"] = sum(bool(one.unsafe) for one in of)
        row["stopped"] = sum(one.asked_s is not None for one in of)
        row["at_rest"] = sum(judging.at_rest_in_time(one) for one in of)
        row["confirmed"] = sum(judging.shown_in_time(one) for one in of)
        for key in ("asked_s", "stood_s", "confirmed_s"):
            found = [x for one in of if (x := getattr(one, key)) is not None]
            row[key] = (round(float(np.median(found)), 3), round(max(found), 3)) if found else None
        rows.append(row)
    return rows


def show(rows: Sequence[dict[str, object]], console: Console) -> None:
    """Prints the rows of `summary` as a table; times are medians and the worst, milliseconds."""
    table = Table(
        title="Faults on trial: stops at rest within 100 ms and shown within 500; ms from strike "
        "to stop, from there to rest, and until shown",
        box=None,
    )
    table.add_column("fault", no_wrap=True)
    for name in ("runs", "unsafe", "stops", "in 100", "in 500", "asked", "stands", "shown"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        names = ("fault", "runs", "unsafe", "stopped", "at_rest", "confirmed")
        counts = [str(row[name]) for name in names]
        pairs = [row[key] for key in ("asked_s", "stood_s", "confirmed_s")]
        times = [
            "/".join(f"{1000 * x:.0f}" for x in pair) if isinstance(pair, tuple) else "-"
            for pair in pairs
        ]
        table.add_row(*counts, *times)
    console.print(table)


def plan(config: Trial) -> Iterator[str]:
    """What a dry run says."""
    chosen = _cases(config)
    where = "over ROS 2, in real time" if config.ros else "in virtual time"
    yield f"{len(chosen)} faults, {config.seeds} seeds each, {where}"


def run(config: Trial, console: Console) -> list[Judged]:
    """Runs all that is asked for, prints and writes what came of it.

    Raises:
        RealdexError: A fault that is not known, counts that make no sense, or no ROS 2.
    """
    chosen = _cases(config)
    commands.make_folder(config.out)
    seeds = range(config.seed, config.seed + config.seeds)
    wanted = [(case, seed) for case in chosen for seed in seeds]
    plan = motion()
    with _bar(console, len(wanted)) as told:
        if config.ros:
            judged = over_ros(wanted, plan, told)
        else:
            judged = []
            for case, seed in wanted:
                judged.append(in_virtual_time(case, seed, plan))
                told()
    rows = summary(judged)
    show(rows, console)
    for one in judged:
        if one.unsafe:
            text = f"{one.fault}, seed {one.seed}: {'; '.join(one.unsafe)}"
            console.print(text, style="red", highlight=False, markup=False)
    names = list(rows[0])
    unsafe = [
        f"{one.fault}, seed {one.seed}: {'; '.join(one.unsafe)}" for one in judged if one.unsafe
    ]
    page.leave(
        config.out,
        f"Faults on trial: {len(unsafe)} of {len(judged)} runs unsafe",
        page.origin(commands.line(), config, seeds),
        {"summary": rows, "runs": judged},
        tables=[page.Table("Median and worst times, s", names, [_cells(row) for row in rows])],
        pictures=[trial_page.chart(judged)],
        notes=unsafe,
    )
    return judged


def _cells(row: dict[str, object]) -> list[str]:
    texts = (" / ".join(map(str, x)) if isinstance(x, tuple) else x for x in row.values())
    return ["-" if text is None else str(text) for text in texts]


def _cases(config: Trial) -> tuple[Case, ...]:
    if config.seeds < 1 or config.seed < 0:
        raise ConfigError(f"--seeds {config.seeds}, --seed {config.seed}; at least 1 and 0")
    return cases.named(config.faults, config.ros)


@contextlib.contextmanager
def _bar(console: Console, total: int) -> Iterator[Callable[[], None]]:
    bar: Progress = commands.progress(console)
    with bar:
        task = bar.add_task("runs", total=total)
        yield lambda: bar.advance(task)


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    config = commands.read(Trial, __doc__, plan=plan)
    console = Console()
    with commands.ending(console):
        judged = run(config, console)
    sys.exit(int(any(one.unsafe for one in judged)))


if __name__ == "__main__":
    main()
