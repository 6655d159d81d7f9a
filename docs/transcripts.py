"""Makes the transcripts: commands are really run, and what they said is kept.

    python docs/transcripts.py                  # all that are not there yet, in order
    python docs/transcripts.py doctor inspect   # these anew
    python docs/transcripts.py --work FOLDER    # where they run; kept, so that later ones find it

Each runs in the folder of the work, so that `runs/...` of the commands is there and not in the
repository. What is written follows `RULE`; nothing is edited by hand.
Takes half an hour on 2 cores.
"""

import argparse
import dataclasses
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402

from experiments.report_table import insert  # noqa: E402
from realdex_jax.evaluation import results  # noqa: E402
from realdex_jax.hand import human, joints  # noqa: E402
from realdex_jax.hand.load import load  # noqa: E402

WIDTH, HEAD, TAIL = 110, 30, 20
LIMIT_S = 600.0
"""A command that takes longer is ended, and said to be."""
RULE = (
    f"Lines are cut off at {WIDTH} characters, blank ends of lines are taken away, and of more "
    f"than {HEAD + TAIL} lines the first {HEAD} and the last {TAIL} are shown; colours are left "
    "out, and so are the folders of the machine. A progress bar is as into a file: its last state, "
    "and before it, where work takes long, a line now and then."
)


@dataclasses.dataclass(frozen=True)
class Command:
    """One transcript to be made."""

    name: str
    words: str
    """As typed after `python -m`."""
    status: int = 0
    """Exit status that is expected."""


COMMANDS = (
    Command("jobs", "experiments"),
    Command("doctor", "experiments.doctor"),
    Command("data_table", "experiments.data_table --row"),
    Command("mistake", "experiments.compare runs/one runs/two --colour", 2),
    Command("annotate", "experiments.annotate --help"),
    Command("train_pose_dry", "experiments.train_pose --preset paper --run runs/paper --dry-run"),
    Command("make_dataset_dry", "experiments.make_dataset --preset small --dry-run"),
    Command("write_release", "experiments.write_release --limit 3 --out runs/release"),
    Command("convert_dry", "experiments.convert runs/release runs/back --limit 12 --dry-run"),
    Command("convert", "experiments.convert runs/release runs/back --limit 12"),
    Command("inspect", "experiments.inspect runs/back"),
    Command("train_pose", "experiments.train_pose --preset smoke --run runs/smoke"),
    Command(
        "make_dataset",
        "experiments.make_dataset --objects mug --train 3 --batch 16 --max-batches 4 "
        "--out runs/mug",
    ),
    Command(
        "eval_sim",
        "experiments.eval_sim --preset smoke --stages dataset refined physics --out runs/eval_sim",
    ),
    Command("select", "experiments.select --object mug --count 16 --top 3 --out runs/select"),
    Command("demo", "experiments.demo --preset smoke"),
    Command("compare", "experiments.compare runs/eval_sim runs/demo"),
    Command(
        "user_study",
        "experiments.user_study draw --methods one=runs/eval_sim/grasps two=runs/demo/grasps "
        "--samples 1 --items runs/items",
    ),
    Command("record", "experiments.record runs/recording --frames 4 --width 480"),
    Command("clouds", "experiments.clouds runs/recording --count 2"),
    Command("calibrate", "experiments.calibrate --width 960 --placements 8"),
    Command("trial", 'robot.trial --faults "joint states frozen" --seeds 2'),
    Command("execute", "robot.execute --object mug --no-video"),
    Command(
        "teleop",
        "experiments.teleop --source runs/keypoints.npz --robot none --out runs/teleop",
    ),
)
"""In the order in which they need each other."""
APART: Mapping[str, str] = {
    "experiments.demo": "all six objects, five minutes: above is the smallest preset",
    "experiments.train_motion": "makes demonstrations first, many minutes",
    "experiments.motion_data": "the demonstrations, many minutes the first time",
    "experiments.eval_motion": "makes demonstrations first, many minutes",
    "experiments.eval_clouds": "renders ten rigs; its table is in clouds.md",
    "experiments.eval_icp": "renders five rigs; its table is in calibration.md",
    "experiments.eval_sync": "renders ten rigs; its table is in timesync.md",
    "experiments.eval_tracking": "an hour; its table is in tracking.md",
    "experiments.fit_selection": "minutes of physics; what it found is in selection.md",
    "experiments.make_frames": "renders for an hour; a recording is among the above",
    "experiments.export": "one line; see export.md",
    "experiments.export_lerobot": "makes demonstrations first; see view.md",
    "experiments.notebooks": "runs the notebooks, whose pictures are in notebooks.md",
    "experiments.report_table": "changes a page of this site",
    "experiments.soak": "records for an hour",
    "experiments.user_study serve": "waits for people; pictures are in user_study.md",
    "experiments.view": "opens a browser; see view.md",
    "experiments.view_pictures": "takes the pictures of view.md, with a browser",
    "experiments.record --rig kinect": "needs cameras",
    "benchmarks.run": "needs PyTorch beside; its tables are in benchmarks.md",
    "robot.execute --robot ros2": "needs ROS 2 and a robot",
    "robot.simulated": "waits for a client, such as robot.execute above",
}
"""What is not run, and why."""


def main() -> None:
    """Runs what is asked for, and writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=", ".join(c.name for c in COMMANDS))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "transcripts")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds of each")
    asked = parser.parse_args()
    unknown = sorted(set(asked.names) - {c.name for c in COMMANDS})
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such transcript; see --help")
    folder = DOCS / "transcripts"
    commit, wrong = results.commit(), []
    for command in COMMANDS:
        page = folder / f"{command.name}.md"
        if command.name in asked.names or (not asked.names and not page.exists()):
            Console().print(command.words, highlight=False, markup=False)
            try:
                made = run(command, commit, asked.work.resolve(), asked.limit)
            except RuntimeError as error:
                wrong.append(str(error))
            else:
                results.write_whole(page, made)
    index = DOCS / "transcripts.md"
    results.write_whole(
        index, insert(index.read_text(encoding="utf-8"), overview(folder), "transcripts")
    )
    if wrong:
        sys.exit("\n".join(wrong))


def run(command: Command, commit: str, work: Path, limit_s: float) -> str:
    """Runs a command; its page.

    Raises:
        RuntimeError: It ended otherwise than is expected.
    """
    (work / "runs").mkdir(parents=True, exist_ok=True)
    if command.name == "teleop":
        _keypoints(work / "runs" / "keypoints.npz")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COLUMNS": str(WIDTH),
        "NO_COLOR": "1",
        "GEMINI_API_KEY": "",
    }
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command.words)],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=limit_s)
        ended = f"exit status {process.returncode}"
    except subprocess.TimeoutExpired:
        process.terminate()
        said, _ = process.communicate()
        ended = f"ended after {limit_s:.0f} s, before it was done"
    seconds = time.monotonic() - began
    if process.returncode != command.status:
        raise RuntimeError(f"{said}\npython -m {command.words}: {ended}; no page was written")
    about = {
        "commit": commit,
        "machine": machine(),
        "seconds": round(seconds, 1),
        "ended": ended,
    }
    return (
        f"# {command.name}\n\n"
        f"At commit `{about['commit']}`, {about['seconds']:.0f} s, {about['ended']}; "
        f"{about['machine']}.\n\n"
        f"```text\n$ python -m {command.words}\n{trimmed(said, work)}\n```\n\n"
        f"<!-- {json.dumps(about)} -->\n"
    )


def trimmed(said: str, work: Path) -> str:
    """What a command said, by `RULE`."""
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    lines = [line.rpartition("\r")[2].rstrip()[:WIDTH] for line in said.split("\n")]
    text = "\n".join(lines).strip("\n")
    for path, shown in ((work, "."), (ROOT, "."), (Path(sys.prefix), "ENV"), (Path.home(), "~")):
        text = text.replace(f"{path}/", "" if shown == "." else f"{shown}/")
        text = re.sub(rf"{re.escape(str(path))}(?![\w])", shown, text)
    lines = text.split("\n")
    left = len(lines) - HEAD - TAIL
    if left > 0:
        lines = [*lines[:HEAD], f"[... {left} lines ...]", *lines[-TAIL:]]
    return "\n".join(lines)


def machine() -> str:
    """Processor and priority, by which seconds are to be read."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    model = found[1] if found else platform.machine()
    low = os.sched_getscheduler(0) == os.SCHED_IDLE or os.getpriority(os.PRIO_PROCESS, 0) > 0
    load = ", at low priority beside other work" if low else ""
    return f"{len(os.sched_getaffinity(0))} cores of {model}{load}"


def overview(folder: Path) -> str:
    """The table of all transcripts, and what is not run."""
    lines, missing = [RULE, ""], []
    for command in COMMANDS:
        page = folder / f"{command.name}.md"
        if not page.exists():
            missing.append(command)
            continue
        if not lines[-1]:
            lines += ["| command | commit | seconds | ended |", "|---|---|---|---|"]
        about = json.loads(re.findall(r"<!-- (\{.*\}) -->", page.read_text(encoding="utf-8"))[-1])
        lines.append(
            f"| [`{command.words}`](transcripts/{command.name}.md) | `{about['commit']}` "
            f"| {about['seconds']:.0f} | {about['ended']} |"
        )
    rows: Sequence[tuple[str, str]] = [
        *((c.words, "not run yet: `python docs/transcripts.py` does") for c in missing),
        *APART.items(),
    ]
    lines += ["", "Not run:", "", *(f"- `{words}`: {why}." for words, why in rows)]
    if pages := [c.name for c in COMMANDS if c not in missing]:
        inside = [f"transcripts/{name}" for name in pages]
        lines += ["", "```{toctree}", ":hidden:", "", *inside, "```"]
    return "\n".join(lines)


def _keypoints(path: Path) -> None:
    """A right hand that opens and closes while it moves forward: four seconds at 100 Hz."""
    hand, count = load("shadow"), 400
    share = 0.5 - 0.5 * np.cos(np.linspace(0.0, 2 * np.pi, count))[:, None]
    phi = np.zeros((count, 28), np.float32)
    phi[:, :22] = joints.REST + share * 0.4 * (joints.UPPER - joints.REST)
    phi[:, 22:25] = share * np.array([0.05, 0.0, 0.0])
    np.savez(path, keypoints=human.keypoints_of(hand, jnp.asarray(phi)))


if __name__ == "__main__":
    main()
