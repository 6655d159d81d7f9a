"""A robot inside the test's own process, on a clock of its own, with faults on demand."""

import dataclasses

import numpy as np

from robot import brake, curve, limits
from robot.interface import JointState, RobotError, Trajectory
from sim import workcell

TICK = 0.01
NEVER = 1e9


class Clock:
    """Time that passes when someone sleeps."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += max(seconds, 1e-4)


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong from `at` seconds after the first command on, for `lasts` seconds."""

    name: str
    at: float = NEVER
    lasts: float = NEVER


class FakeRobot:
    """Joints follow the set points of whatever was last sent with a lag; states come at 100 Hz."""

    def __init__(self, clock, q, fault, rng):
        self.clock, self.fault, self.rng = clock, fault, rng
        self.q, self.qd = np.array(q), np.zeros(30)
        self.held = np.array(q)  # set point while nothing is followed
        self.followed = None
        self.begun = self.ticked = clock.now
        self.first_sent = None
        self.sent = []  # time, trajectory, age of the last state given out
        self.stops = []
        self.given = None  # the last state given out
        self.line = []  # states on their way
        self.told = False
        self.closed = False
        self.raised = 0
        self.speeds = []  # time, greatest true speed
        self.scaled_s = 0.0
        self.dead = self.stuck = None

    # What goes wrong

    def on(self, *names):
        if self.first_sent is None or self.fault.name not in names:
            return False
        t = self.clock.now - self.first_sent - self.fault.at
        return 0.0 <= t < self.fault.lasts

    # The physical side

    def set_point(self):
        if self.followed is None:
            return self.held
        begun, trajectory = self.followed
        t = self.clock.now - begun
        if self.fault.name.startswith("speed scale") and self.on(self.fault.name):
            t = self.scaled_s
        return curve.sample(trajectory, np.array([t]))[0][0]

    def advance(self):
        end = self.clock.now
        while self.ticked + TICK <= end + 1e-9:
            self.ticked += TICK
            self.clock.now = self.ticked
            self.scaled_s += TICK * (0.1 if self.fault.name == "speed scale 0.1" else 0.0)
            if self.on("emergency stop", "controller dead") and self.followed is not None:
                self.held, self.followed = self.q.copy(), None
            target = self.set_point()
            if self.on("joint stuck"):
                self.stuck = self.q[1] if self.stuck is None else self.stuck
                target = target.copy()
                target[1] = self.stuck
            before = self.q
            self.q = self.q + 0.7 * (target - self.q) + 1e-7 * self.rng.normal(size=30)
            self.qd = (self.q - before) / TICK
            self.speeds.append((self.ticked, float(np.abs(self.qd).max())))
            self.publish()
        self.clock.now = end

    def publish(self):
        silent = ("silent 20 ms", "silent 40 ms", "silent 100 ms", "silent 500 ms", "silent")
        if self.on(*silent, "network cut"):
            return
        if self.on("states drop 10 %") and self.rng.random() < 0.1:
            return
        stamp, names, q, qd = self.ticked - 500.0, limits.NAMES, self.q.copy(), self.qd.copy()
        delay = 0.002
        j = int(self.rng.integers(30))
        if self.on("position nan"):
            q[j] = np.nan
        if self.on("velocity inf"):
            qd[j] = np.inf
        if self.on("stamp nan"):
            stamp = np.nan
        if self.on("jump"):
            q[j] += 0.5
        if self.on("too fast"):
            qd[j] = 7.0
        if self.on("beyond a limit"):
            q[j] = limits.UPPER[j] + 0.06
        if self.on("late 30 ms"):
            delay = 0.032
        if self.on("late 200 ms"):
            delay = 0.202
        if self.on("duplicate joint"):
            names = (*names[:j], names[(j + 1) % 30], *names[j + 1 :])
        if self.on("missing joint"):
            names, q, qd = names[:-1], q[:-1], qd[:-1]
        if self.on("clock forward"):
            stamp += 10.0
        if self.on("clock backward"):
            stamp -= 10.0
        if self.on("values frozen", "frozen at rest"):
            if self.dead is None:
                self.dead = q, qd if self.fault.name == "values frozen" else np.zeros(30)
            q, qd = self.dead
        if self.on("shuffled names"):
            order = self.rng.permutation(30)
            names, q, qd = tuple(names[i] for i in order), q[order], qd[order]
        self.line.append((self.ticked + delay, JointState(stamp, 0.0, names, q, qd)))
        if self.on("out of order") and len(self.line) > 1:
            self.line[-1], self.line[-2] = (
                (self.line[-1][0], self.line[-2][1]),
                (self.line[-2][0], self.line[-1][1]),
            )

    # What the executor sees

    def state(self):
        self.advance()
        if self.on("client raises"):
            raise OSError("socket closed")
        if self.on("ctrl-c twice") and self.raised < 2:
            self.raised += 1
            raise KeyboardInterrupt
        while self.line and self.line[0][0] <= self.clock.now + 1e-9:
            came, joint = self.line.pop(0)
            if self.on("message frozen"):
                continue
            self.given = dataclasses.replace(joint, received_s=came)
        return self.given

    def faults(self):
        if self.on("aborted", "emergency stop") and not self.told:
            self.told = True
            if self.fault.name == "aborted":
                self.held, self.followed = self.q.copy(), None
            return (f"controller: {self.fault.name}",)
        return ()

    def send(self, trajectory):
        self.advance()
        self.first_sent = self.clock.now if self.first_sent is None else self.first_sent
        came = self.given.received_s if self.given is not None else -np.inf
        self.sent.append((self.clock.now, trajectory, self.clock.now - came))
        if self.on("rejected"):
            raise RobotError("goal rejected")
        if self.on("network cut", "controller dead", "emergency stop"):
            return (trajectory,)
        if self.on("commands drop 10 %") and self.rng.random() < 0.1:
            return (trajectory,)
        self.followed = self.clock.now, trajectory
        self.scaled_s = 0.0
        return (trajectory,)

    def stop(self):
        self.advance()
        self.stops.append(self.clock.now)
        if self.on("stop raises"):
            raise RobotError("stop service is gone")
        if self.on("network cut", "cancel ignored"):
            return ()
        if self.on("stop slow") and self.clock.now - self.stops[0] < 0.15:
            return ()
        if self.followed is None:
            return ()
        # As a real arm: no faster than accelerations allow.
        least = float(brake.seconds(self.qd, limits.STOP_ACCELERATION, limits.STOP_JERK).max())
        ends = np.stack([self.q, self.q + 0.5 * least * self.qd])
        rates = np.stack([self.qd, np.zeros(30)])
        stop = Trajectory(limits.NAMES, np.array([0.0, least]), ends, rates)
        self.followed, self.scaled_s = (self.clock.now, stop), 0.0
        return (stop,)

    def close(self):
        self.stop()
        self.closed = True


class PhysicsRobot:
    """The robot of `sim.workcell`, its controllers following what was sent; nothing goes wrong."""

    def __init__(self, clock, cell, q):
        self.clock, self.cell = clock, cell
        self.data = workcell.start(cell, q)
        self.held, self.followed = np.array(q), None
        self.begun, self.steps = clock.now, 0
        self.given = None
        self.sent = []

    def advance(self):
        dt = self.cell.model.opt.timestep
        for _ in range(round((self.clock.now - self.begun) / dt) - self.steps):
            self.steps += 1
            q, qd = self.held, np.zeros(30)
            if self.followed is not None:
                t = self.begun + self.steps * dt - self.followed[0]
                q, qd = (x[0] for x in curve.sample(self.followed[1], np.array([t])))
            workcell.step(self.cell, self.data, q, qd)
            if self.steps % 5 == 0:
                now, rate = workcell.joint_state(self.cell, self.data)
                stamp = self.steps * dt
                self.given = JointState(stamp, self.begun + stamp, limits.NAMES, now, rate)

    def state(self):
        self.advance()
        return self.given

    def faults(self):
        return ()

    def send(self, trajectory):
        self.advance()
        self.sent.append(trajectory)
        self.followed = self.clock.now, trajectory
        return (trajectory,)

    def stop(self):
        self.advance()
        self.held, self.followed = workcell.joint_state(self.cell, self.data)[0], None
        return ()

    def close(self):
        self.stop()
