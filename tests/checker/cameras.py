"""Virtual cameras whose pictures cost nothing, and a program that records them until it is killed.

As a program it forks a recorder for each line that it reads: a folder. Importing takes seconds,
forking none, so many can be killed in short time.
"""

import os
import pathlib
import sys

import numpy as np

from capture import recorder, virtual
from capture.chunks import Record, Writer
from capture.recording import Storage
from capture.streams import RecorderConfig
from capture.virtual import Loop, VirtualJoints
from sim import clocks, film
from sim.clocks import Clock
from sim.film import VirtualRig

KILLED = RecorderConfig(storage=Storage(chunk_bytes=300_000), patient=True, floor_bytes=0)
"""Files roll often, so that some kills come while they do."""


def rig(width: int = 160, depth_width: int = 80) -> VirtualRig:
    """Four cameras; by default of 160 x 90 and 80 x 72 pixels."""
    return film.around_table(0, width, depth_width, timing=clocks.draw(4, 0))


def noise_loop(cameras: VirtualRig, seed: int = 0) -> Loop:
    """Seven colour and five depth pictures of each camera: smooth, with noise."""
    rng = np.random.default_rng(seed)
    colour, depth = [], []
    for pair in cameras.lenses:
        h, w = pair.colour.height, pair.colour.width
        slope = np.linspace(0, 180, w)[None, :, None] + np.linspace(0, 40, h)[:, None, None]
        noisy = (slope + rng.normal(0, 4, (h, w, 3)) + 5 * k for k in range(7))
        colour.append([np.clip(one, 0, 255).astype(np.uint8) for one in noisy])
        h, w = pair.depth.height, pair.depth.width
        far = 700 + np.linspace(0, 400, w)[None] + rng.normal(0, 2, (5, h, w))
        far[:, : h // 4] = 0
        depth.append(list(far.astype(np.uint16)))
    return Loop(colour, depth)


def main() -> None:
    """Reads folders, answers with the number of a process that records into each."""
    cameras = rig()
    loop = noise_loop(cameras)
    append = Writer.append
    for line in sys.stdin:
        folder = pathlib.Path(line.strip())
        pid = os.fork()
        if pid:
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
            os.waitpid(pid, 0)
            continue
        closed = os.open(f"{folder}.closed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def telling(self: Writer, record: Record, closed: int = closed) -> None:
            append(self, record)
            os.write(closed, f"{self._stream} {record.number}\n".encode())

        Writer.append = telling
        devices = virtual.devices(cameras, loop, pace="free")
        time_s = np.array([0.0, 1e6])
        q = np.array([[0.0, 1.0], [1.0, 0.0]])
        joints = VirtualJoints(("a", "b"), time_s, q, Clock(), devices[0].pulse)
        recorder.record(devices, folder, None, KILLED, joints=joints)
        os._exit(0)


if __name__ == "__main__":
    main()
