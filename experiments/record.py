"""Records a rig of cameras: four Azure Kinects, a virtual rig, or an earlier recording again.

    python -m experiments.record OUT                            # a virtual rig, a mug, a reach
    python -m experiments.record OUT --live --seconds 60        # the same at the clock's pace
    python -m experiments.record OUT --rig kinect --robot shadow_ur10e  # Ctrl-C ends it
    python -m experiments.record OUT --rig replay --source FOLDER_OR_MKV
    python -m experiments.record board PICTURES                 # the virtual rig before a board
    python -m experiments.record to-realdex RECORDING DEST/mug_1 --calibration runs/calibration
    python -m experiments.record repair RECORDING

A virtual rig renders every exposure at its own time, about a second each, and keeps what is
true in `truth.npz`; live, it shows a few exposures over and over, as no machine renders so fast.
Exit status: 0 if every frame is on disk, 1 if some are not or a camera was lost, 2 if it could not
be done. `docs/capture.md` says what is written.
Takes about a second a picture of a virtual camera; else as long as it records.
"""

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from capture import board_set, kinect, realdex, recorder, recording, replay, timeline
from capture.codecs import ColourCodec
from capture.device import Device
from capture.recorder import Summary
from capture.recording import Recording, Storage
from capture.streams import Count, Event, JointSource, RecorderConfig
from capture.timeline import Timeline
from experiments import commands, rig_places, virtual_board, virtual_rig
from experiments.robot_joints import RobotJoints
from experiments.virtual_rig import Made
from realdex_jax.data import realdex_write
from realdex_jax.errors import ConfigError
from realdex_jax.evaluation import results
from realdex_jax.hand.load import load
from robot import presets
from sim import film


@dataclasses.dataclass(frozen=True)
class Record:
    """Command line of a recording."""

    out: tyro.conf.Positional[Path]
    """Folder of the recording; new or empty."""
    rig: Literal["virtual", "kinect", "replay"] = "virtual"
    """Where frames come from."""
    seconds: float | None = None
    """How long; by default to the end of the motion or recording, or until Ctrl-C."""
    colour: ColourCodec = "jpeg"
    """How colour is stored; png loses nothing, and is too slow for four cameras."""
    quality: int = 95
    """Of jpeg."""
    floor_gb: float = 2.0
    """Free space (GiB) at which recording ends."""
    object: str = "mug"
    """virtual: the object."""
    motion: int = 0
    """virtual: which of the object's demonstrations."""
    frames: int = 30
    """virtual: so many last frames of the reach; 0 is all of it, about 90."""
    lift: float = 0.1
    """virtual: metres that hand and object rise after it."""
    width: int = 960
    """virtual: columns of colour, a multiple of 16."""
    depth_width: int = 640
    """virtual: columns of depth, a multiple of 10."""
    seed: int = 0
    """virtual: of lenses, places, clocks and noise."""
    live: bool = False
    """virtual: at the clock's pace."""
    source: Path | None = None
    """replay: a recording, an .mkv file or a folder of such."""
    cameras: int | None = None
    """kinect: how many; all that are plugged in by default."""
    main: int = 0
    """kinect: the SDK's index of the camera at the beginning of the sync cable."""
    resolution: kinect.Resolution = "1080P"
    """kinect: of colour."""
    exposure_us: int = 8330
    """kinect: of colour, microseconds; on the cable it must be manual."""
    robot: str | None = None
    """kinect: preset of the robot whose joint states on ROS 2 are recorded; none by default."""
    presets: Path = presets.FILE
    """kinect: file of presets."""


@dataclasses.dataclass(frozen=True)
class BoardPictures:
    """Command line of the virtual rig's pictures of a board, for `experiments.calibrate --rig`."""

    out: tyro.conf.Positional[Path]
    """Folder of the pictures."""
    seed: int = 0
    """Of the rig: that of the recording."""
    width: int = 1920
    """Columns of the pictures, a multiple of 16; the recording's may be fewer."""
    placements: int = 20
    """Of the board on the table."""
    poses: int = 36
    """Of the robot that holds the board."""


@dataclasses.dataclass(frozen=True)
class ToRealdex:
    """Command line of a conversion."""

    recording: tyro.conf.Positional[Path]
    """The recording."""
    dest: tyro.conf.Positional[Path]
    """Folder in RealDex's layout, `<object>_<n>`; its calibration goes beside it."""
    calibration: Path | None = None
    """What `experiments.calibrate` wrote, or a folder of `cali01.json` and so on; by default what
    is true of a virtual recording."""
    world: Path | None = None
    """JSON with `cam0_rgb_camera_link`, T_base_cam0: the arm's base is the world. By default that
    of `--calibration`; without one camera 0 is the world, and the robot is left out."""
    robot_clock: timeline.By = "either"
    """motion: by where the clouds show the robot; arrival: by when its states came, which may be
    tens of milliseconds off; either: arrivals where motion does not tell."""
    wired: bool = True
    """Whether the cameras were on the sync cable."""


@dataclasses.dataclass(frozen=True)
class Repair:
    """Command line of a repair."""

    recording: tyro.conf.Positional[Path]
    """The recording."""


def main() -> None:
    """Command line; mistakes of the user end in one line, not a traceback."""
    console = Console()
    job, name, rest = commands.name(), (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    status = 0
    with commands.ending(console), _terminated():
        if name == "to-realdex":
            convert(commands.read(ToRealdex, __doc__, rest, f"{job} {name}"), console)
        elif name == "board":
            photograph(commands.read(BoardPictures, __doc__, rest, f"{job} {name}"), console)
        elif name == "repair":
            repair(commands.read(Repair, __doc__, rest, f"{job} {name}").recording, console)
        else:
            status = 0 if run(commands.read(Record, __doc__), console).good else 1
    sys.exit(status)


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Ends a recording as Ctrl-C does when the system asks the process to go."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(args: Record, console: Console, cache: Path | None = None) -> Summary:
    """Records; returns how it went.

    Args:
        args: The settings.
        console: Where progress goes.
        cache: Folder of finished demonstrations; None is the user's cache folder.

    Raises:
        RealdexError: It could not be begun.
    """
    if args.seconds is not None and not args.seconds > 0:
        raise ConfigError(f"seconds is {args.seconds}; must be positive")
    if not 1 <= args.quality <= 100:
        raise ConfigError(f"quality is {args.quality}; must be 1 to 100")
    config = RecorderConfig(
        storage=Storage(colour=args.colour, quality=args.quality),
        floor_bytes=int(args.floor_gb * 2**30),
    )
    joints: JointSource | None = None
    made: Made | None = None
    if args.robot is not None and args.rig != "kinect":
        raise ConfigError(f"--robot {args.robot} with --rig {args.rig}; it goes with kinect")
    if args.rig == "kinect":
        devices: Sequence[Device] = kinect.devices(
            args.cameras,
            main=args.main,
            resolution=args.resolution,
            exposure_us=args.exposure_us,
        )
    elif args.rig == "replay":
        if args.source is None:
            raise ConfigError("--rig replay needs --source: a recording, or .mkv files")
        if args.seconds is not None:
            raise ConfigError("--rig replay has no clock; leave --seconds out")
        devices, joints = replay.devices(args.source), replay.joints(args.source)
        config = dataclasses.replace(config, patient=True)
    else:
        chosen = virtual_rig.Choice(
            args.object,
            args.motion,
            args.frames,
            args.lift,
            args.width,
            args.depth_width,
            args.seed,
        )
        made = virtual_rig.make(chosen, console.print, cache)
        devices, joints = virtual_rig.devices(made, args.seconds, live=args.live)
        config = dataclasses.replace(config, patient=not args.live)
    # Without a clock the sequence is cut, not the time.
    seconds = args.seconds if args.live or args.rig == "kinect" else None
    with contextlib.ExitStack() as stack:
        if args.rig == "kinect":
            joints = _robot(args, console, stack)
        board = stack.enter_context(Board(console, seconds))
        summary = recorder.record(
            devices,
            args.out,
            seconds,
            config,
            joints=joints,
            note={"rig": args.rig, "command": commands.line(), "commit": results.commit()},
            tell=board.tell,
        )
    if made is not None:
        virtual_rig.save_truth(args.out, made, live=args.live)
    for line in told(summary):
        console.print(line, highlight=False, soft_wrap=True)
    return summary


def _robot(args: Record, console: Console, stack: contextlib.ExitStack) -> RobotJoints | None:
    """The robot's joints on ROS 2, all of them heard of; let go of with the stack."""
    if args.robot is None:
        console.print(
            f"no joints are recorded; --robot NAME records those of a preset of {args.presets}",
            highlight=False,
            soft_wrap=True,
        )
        return None
    joints = RobotJoints(presets.read(args.robot, args.presets))
    stack.callback(joints.close)
    with console.status(f"waiting for the joints of {args.robot}"):
        joints.wait()
    return joints


def photograph(args: BoardPictures, console: Console) -> None:
    """Writes the pictures that the virtual rig of a seed takes of a board.

    Raises:
        RealdexError: No such pictures, or the arm does not reach.
    """
    cameras = film.around_table(args.seed, args.width, virtual_rig.Choice().depth_width)
    shown, _ = virtual_board.record(
        args.seed, args.width, args.placements, args.poses, seen_by=cameras
    )
    count = sum(len(numbers) for part in shown.shots.values() for numbers in part.values())
    with commands.progress(console) as progress:
        task = progress.add_task("pictures of the board", total=count)
        board_set.write(args.out, shown, lambda: progress.advance(task))
    console.print(f"{args.out}: {count} pictures for experiments.calibrate --rig", highlight=False)


def convert(args: ToRealdex, console: Console) -> int:
    """Writes a recording in RealDex's layout; returns how many pictures were written.

    Raises:
        RealdexError: The recording, or its calibration, cannot be read.
    """
    found, hand = Recording(args.recording), load("shadow")
    places = rig_places.find(found, args.calibration, args.world)
    cams, base = places.wxyz_xyz_world_cam, places.wxyz_xyz_world_base
    realdex.begin(args.dest, found, cams, base)
    times = timeline.of_cameras(found, wired=args.wired)
    if base is not None:
        with console.status("looking for the robot's clock"):
            times = timeline.with_robot(found, times, cams, hand, base, args.robot_clock)
    for line in clocks_told(times, places.left_out):
        console.print(line, highlight=False, soft_wrap=True)
    count = sum(len(found.stamps(c).number) for c in found.cameras)
    with commands.progress(console) as progress:
        most = max(len(found.stamps(c).number) for c in found.cameras)
        task = progress.add_task(args.dest.name, total=most)
        written = realdex.to_realdex(
            found,
            args.dest,
            cams,
            camera_ns=times.camera_ns,
            robot_ns=times.robot_ns,
            hand=hand,
            wxyz_xyz_world_base=base,
            tell=lambda _: progress.advance(task),
        )
    if places.wxyz_xyz_world_object is not None:
        realdex_write.write_track(args.dest, places.wxyz_xyz_world_object, realdex.TRUE_TRACK)
    console.print(f"{args.dest}: {written} of {count} pictures written", highlight=False)
    return written


def clocks_told(times: Timeline, left_out: str) -> Iterator[str]:
    """What is to say about the clocks of a recording, in lines.

    Args:
        times: Its timeline.
        left_out: Why the robot is left out; empty if it is not.
    """
    for camera, clock in times.clocks.items():
        for number, step in clock.steps:
            yield f"camera {camera}: its clock steps by {step:+.3f} s at frame {number}; mended"
    if left_out:
        yield f"[yellow]the robot is left out[/]: {escape(left_out)}"
    elif times.robot is not None:
        error, drift = 1e3 * times.robot.offset_error_s, times.robot.drift_ppm
        yield (
            f"robot's clock by its motion: {1e3 * times.robot.offset_s:+.1f} ms from what arrivals "
            f"say, known to {error:.1f} ms; drift {drift:+.0f} millionths"
        )
    elif times.robot_ns is not None:
        yield (
            "[yellow]robot's clock by arrivals alone[/], which may be tens of milliseconds off: "
            f"{escape(times.why)}"
        )


def repair(path: Path, console: Console) -> None:
    """Cuts off what a killed recorder had begun, and says what is left.

    Raises:
        CaptureError: No recording is there.
    """
    for file, size in recording.repair(path).items():
        console.print(f"{file.name}: {size} bytes cut off", highlight=False)
    for name, stream in recording.manifest(path)["streams"].items():
        console.print(
            f"{name}: {stream['frames']} whole, {stream['dropped']} missing", highlight=False
        )


def told(summary: Summary) -> Iterator[str]:
    """How a recording went, in lines."""
    why = {
        "time": "complete",
        "over": "complete",
        "interrupted": "stopped by hand",
        "disk": "stopped: the disk takes no more",
        "unplugged": "ended with cameras lost",
    }
    yield f"{summary.path}: {summary.seconds:.1f} s, {why[summary.ended]}"
    for camera, count in sorted(summary.counts.items()):
        lost = "none lost"
        if count.lost:
            lost = (
                f"{count.lost} lost ({count.dropped} by the camera, {count.overflowed} as the "
                f"queue was full, {count.unwritten} unwritten)"
            )
        yield f"  camera {camera}: {count.written} frames, {lost}, {count.bytes / 2**20:.1f} MB"
    if summary.joint_states:
        yield f"  robot: {summary.joint_states} states"
    for event in summary.events:
        yield f"  {_who(event)}: {event.kind}, {event.text}"


def _who(event: Event) -> str:
    return "rig" if event.camera is None else f"camera {event.camera}"


class Board:
    """The live table: frames, lost ones, and rate of each camera."""

    def __init__(self, console: Console, seconds: float | None) -> None:
        """Shows nothing yet; seconds are those that are to come, if that is known."""
        self._console, self._seconds = console, seconds
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Board":
        """Shows the table."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Takes it away."""
        self._live.stop()

    def tell(self, seconds: float, counts: Mapping[int, Count], new: Sequence[Event]) -> None:
        """Draws it anew; events stay above."""
        for event in new:
            self._console.print(
                f"[red]{_who(event)}[/]: {event.kind}, {escape(event.text)}", highlight=False
            )
        of = "" if self._seconds is None else f" of {self._seconds:.0f}"
        table = Table(title=f"{seconds:.0f}{of} s", title_justify="left", box=None)
        for column in ("camera", "frames", "lost", "a second", "MB"):
            table.add_column(column, justify="right")
        for camera, count in sorted(counts.items()):
            lost = f"[red]{count.lost}[/]" if count.lost else "0"
            name = f"{camera} gone" if count.gone else str(camera)
            rate = count.written / seconds if seconds > 0 else 0.0
            table.add_row(
                name, str(count.written), lost, f"{rate:.1f}", f"{count.bytes / 2**20:.0f}"
            )
        self._live.update(table, refresh=True)


if __name__ == "__main__":
    main()
