"""What goes wrong on trial, by name: faults of the robot, of the network and of the client."""

import dataclasses
from typing import Literal

from realdex_jax.errors import ConfigError

Client = Literal[
    "",
    "cancel",
    "ctrl-c",
    "raises",
    "late",
    "killed",
    "stop raises",
    "arm stop raises",
    "stale",
    "names",
    "clock",
    "clock jumps",
]
"""What the client does when the fault strikes: it is cancelled, interrupted twice by Ctrl-C, loses
its socket, stalls for 0.4 s, is killed as by -9, is cancelled while its stops fail, or those to the
arm do; starts with a verdict of 2.5 s before; has the joint names of another robot; or a clock
that is 0.3 s fast from the start, or from then on."""
Must = Literal["finish", "stop", "refuse", "any"]
"""How a run must end: at the plan's end; stopped; not begun; or any of these."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing that goes wrong."""

    name: str
    must: Must = "stop"
    """How it must end."""
    orders: tuple[str, ...] = ()
    """Faults of `robot.faults`; {joint} is a joint drawn by the seed."""
    client: Client = ""
    """What the client does."""
    seen: bool = True
    """Whether joint states can show a stop: a stop that is not confirmed is right otherwise."""
    any_start: bool = False
    """Whether controllers take trajectories that begin elsewhere, as ROS 2's do."""

    @property
    def own(self) -> bool:
        """Whether the robot moves as it was told, until it stops by itself."""
        return self._only(("slow", "stuck", "drop", "delay"))

    @property
    def follows(self) -> bool:
        """Whether it follows a stop: nothing goes wrong but what is known of it, and the client."""
        controllers = ("abort", "reject", "deaf", "death", "estop", "partition")
        return self.own and self._only(controllers)

    def _only(self, without: tuple[str, ...]) -> bool:
        return not any(order.split()[0] in without for order in self.orders)


CASES: tuple[Case, ...] = (
    Case("nothing", "finish"),
    Case("states away 20 ms", "finish", ("silent for=0.02",)),
    Case("states away 40 ms", "any", ("silent for=0.04",)),
    Case("states away 100 ms", "stop", ("silent for=0.1",)),
    Case("states away 500 ms", "stop", ("silent for=0.5",), seen=False),
    Case("states away", "stop", ("silent",), seen=False),
    Case("joint states frozen", "stop", ("freeze",), seen=False),
    Case("joint states frozen 200 ms", "any", ("freeze for=0.2",)),
    Case("arm's states frozen", "stop", ("freeze part=arm",), seen=False),
    Case(
        "arm's states frozen, arm ignores stops",
        "stop",
        ("freeze part=arm", "deaf part=arm"),
        seen=False,
    ),
    Case("hand's states frozen", "any", ("freeze part=hand",), seen=False),
    Case("arm's states away", "stop", ("silent part=arm",), seen=False),
    Case("arm's states 200 ms late", "stop", ("delay part=arm by=0.2",), seen=False),
    Case("position nan", "stop", ("nan joint={joint}",), seen=False),
    Case("position jumps 0.5 rad", "stop", ("jump joint={joint} for=0.05",)),
    Case("position off 0.5 rad for good", "stop", ("jump joint={joint} by=-0.5",), seen=False),
    Case("states out of order", "any", ("disorder",), seen=False),
    Case("states and commands 30 ms late", "any", ("delay by=0.03",)),
    Case("states and commands 200 ms late", "stop", ("delay by=0.2",), seen=False),
    Case("joint named twice", "stop", ("duplicate joint={joint}",), seen=False),
    Case("joint missing", "stop", ("missing joint={joint}",), seen=False),
    Case("messages drop 10 %", "any", ("drop by=0.1",)),
    Case("messages drop 50 %", "any", ("drop by=0.5",), seen=False),
    Case("arm rejects goals", "stop", ("reject part=arm",)),
    Case("hand rejects goals", "stop", ("reject part=hand",)),
    Case("arm aborts", "stop", ("abort part=arm",)),
    Case("hand aborts", "stop", ("abort part=hand",)),
    Case("arm controller dies", "stop", ("death part=arm",)),
    Case("hand controller dies", "stop", ("death part=hand",)),
    Case("result never comes", "any", ("deaf part=arm", "deaf part=hand")),
    Case("cancel ignored", "stop", ("deaf part=arm", "deaf part=hand"), "cancel", seen=False),
    Case("arm joint stuck", "any", ("stuck joint=ra_elbow_joint",)),
    Case("finger stuck", "any", ("stuck joint=rh_FFJ3",)),
    Case("emergency stop", "stop", ("estop",)),
    Case("network partition", "stop", ("partition",), seen=False),
    Case("network partition 200 ms", "stop", ("partition for=0.2",)),
    Case("speed slider at 0", "any", ("slow by=0",)),
    Case("speed slider at 0.1", "any", ("slow by=0.1",)),
    Case("speed slider changes", "any", ("slow by=0.5 for=0.3", "slow by=0.9 at=0.3")),
    Case("any start, speed slider at 0.5", "any", ("slow by=0.5",), any_start=True),
    Case("any start, speed slider at 0.9", "any", ("slow by=0.9",), any_start=True),
    Case("any start, messages drop 50 %", "any", ("drop by=0.5",), seen=False, any_start=True),
    Case("any start, client's clock jumps", "stop", client="clock jumps", any_start=True),
    Case("client's clock jumps 0.3 s", "stop", client="clock jumps"),
    Case("client's clock 0.3 s fast", "stop", client="clock"),
    Case("robot's clock forward 10 s", "any", ("clock by=10",), seen=False),
    Case("robot's clock back 5 s", "stop", ("clock by=-5",), seen=False),
    Case("robot's clock jumps to and fro", "any", ("clock by=1 for=0.1",), seen=False),
    Case("operator cancels", "stop", client="cancel"),
    Case("ctrl-c twice", "stop", client="ctrl-c"),
    Case("client raises", "stop", client="raises", seen=False),
    Case("client late", "stop", client="late"),
    Case("client killed", "stop", client="killed", seen=False),
    Case("stop raises", "stop", client="stop raises", seen=False),
    Case("arm's stop raises", "stop", client="arm stop raises", seen=False),
    Case("two things at once", "stop", ("freeze for=0.1", "abort part=hand")),
    Case("verdict of 2.5 s ago", "refuse", client="stale"),
    Case("another robot's joint names", "refuse", client="names"),
)
"""All of them."""
OVER_ROS = (
    "joint states frozen",
    "messages drop 10 %",
    "arm controller dies",
    "operator cancels",
    "network partition",
)
"""Those that are run over ROS 2."""


def named(names: tuple[str, ...], ros: bool = False) -> tuple[Case, ...]:
    """The cases of these names; all, or all for ROS 2, if the name is `all`.

    Raises:
        ConfigError: A name that none has.
    """
    known = {case.name: case for case in CASES}
    if names == ("all",):
        return tuple(known[name] for name in OVER_ROS) if ros else CASES
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        # In quotes: names have commas of their own.
        wrong, right = (", ".join(map(repr, some)) for some in (unknown or [""], ("all", *known)))
        raise ConfigError(f"no fault {wrong}; known: {right}")
    if ros and any(known[n].client not in ("", "cancel") or known[n].any_start for n in names):
        raise ConfigError(
            "over ROS 2 the client is only cancelled, and controllers check where a command begins;"
            " leave out --ros for the others"
        )
    return tuple(known[name] for name in names)
