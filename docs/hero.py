"""Makes the picture that the README begins with: grasps reached for, and the objects lifted.

    python docs/hero.py                                  # docs/pictures/hero.gif
    python docs/hero.py --objects penguin_toy cosmetics  # other objects, another file: --out FILE

Nothing in it is arranged: of each object the shipped model proposes grasps, those that hold are
scored, and the best one whose generated motion lifts the object is shown, hand and object without
the arm. Objects are of the test split, so nothing was trained on them.
Takes five minutes on 2 cores, most of it compiling.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.console import Console

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from experiments import chain, motion_chain  # noqa: E402
from experiments.protocol import Entry  # noqa: E402
from realdex_jax.data.motion import RATE, Motion  # noqa: E402
from realdex_jax.evaluation import results  # noqa: E402
from realdex_jax.hand.load import HandModel, load  # noqa: E402
from realdex_jax.models import grasp_model, motion_model  # noqa: E402
from realdex_jax.models.grasp_model import GraspModel  # noqa: E402
from realdex_jax.models.motion_model import MotionModel  # noqa: E402
from sim import objects, render, video  # noqa: E402
from sim.physics import Physics  # noqa: E402

OBJECTS = ("small_sprayer", "penguin_toy", "body_lotion")
CANDIDATES, CHOSEN = 32, 4
"""Grasps proposed of each object, and how many of them are reached for."""
SIZE = (216, 232)
"""Pixels of one object's picture."""
EVERY, SPEED = 3, 2.4
"""One picture for so many frames, and how much faster than the motion it plays."""
REST_S = 0.8
"""How long the last picture stays, seconds."""


def main() -> None:
    """Makes the motions, draws them side by side, and writes the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--objects", nargs="+", default=OBJECTS, choices=objects.SPLITS["test"])
    parser.add_argument("--seed", type=int, default=0, help="of clouds, grasps and starts")
    parser.add_argument("--out", type=Path, default=DOCS / "pictures" / "hero.gif")
    asked = parser.parse_args()
    hand, console = load(), Console()
    proposer = grasp_model.load_model("realdex-sim-small")
    mover = motion_model.load_model(hand, "realdex-sim-motion")
    clips = []
    for name in asked.objects:
        console.print(name, highlight=False)
        motion = lifted(hand, proposer, mover, name, asked.seed)
        clips.append(video.draw(hand, objects.make(name), motion, SIZE, EVERY, smooth=True))
    made = gif(side_by_side(clips), SPEED * RATE / EVERY)
    results.write_whole(asked.out, made)
    console.print(f"{asked.out}: {len(made) / 1e6:.2f} MB", highlight=False)


def lifted(
    hand: HandModel, proposer: GraspModel, mover: MotionModel, name: str, seed: int
) -> Motion:
    """The motion to the best grasp that lifts an object, and the lift.

    Raises:
        SystemExit: None of the grasps lifts it.
    """
    shape = objects.make(name)
    (taken,), _ = chain.propose(
        hand,
        proposer,
        Entry(shape, None),
        ("selected",),
        seed=seed,
        latents=CANDIDATES,
        grasps=CHOSEN,
        physics=Physics(),
    )
    done = motion_chain.carry_out(hand, mover, shape, taken.grasps, seed)
    if not done.lifted.any():
        raise SystemExit(f"{name}: none of {len(done.lifted)} grasps lifts it; try another --seed")
    i = int(done.lifted.argmax())
    motions = done.what.motions
    phi = done.phi[i, : done.what.lengths[i]]
    return motion_chain.whole(
        hand, shape, phi, motions.q_squeeze[i], motions.wxyz_xyz_world_object[i]
    )


def side_by_side(
    clips: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]],
) -> list[UInt8[np.ndarray, "h ww 3"]]:
    """Clips in one row; shorter ones rest at their end."""
    length = max(len(clip) for clip in clips)
    return [
        render.contact_sheet([clip[min(k, len(clip) - 1)] for clip in clips], len(clips))
        for k in range(length)
    ]


def gif(pictures: Sequence[UInt8[np.ndarray, "h w 3"]], rate: float) -> bytes:
    """An animation that begins anew for ever.

    All pictures share the colours of the last one, which has all that is seen, and are not
    dithered: what does not move is then the same in all of them, and takes no room.
    """
    last = Image.fromarray(pictures[-1]).quantize(256, dither=Image.Dither.NONE)
    frames = [
        Image.fromarray(picture).quantize(palette=last, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    each = round(1000 / rate)
    file = io.BytesIO()
    frames[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[*[each] * (len(frames) - 1), round(1000 * REST_S)],
        loop=0,
        optimize=False,
    )
    return file.getvalue()


if __name__ == "__main__":
    main()
