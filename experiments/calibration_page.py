"""What a calibration looks like: residuals on the pictures, the rig from above, errors of many."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from capture import apriltag
from capture.board import Corners
from capture.extrinsics import Extrinsics
from capture.handeye import HandEye
from realdex_jax.data import rigid
from realdex_jax.evaluation import figures
from realdex_jax.evaluation.page import Chart
from realdex_jax.geometry.lens import Lens

_COLOURS = ("#3b6fd4", "#0b8f6a", "#d9822b", "#a05ab4")
"""By camera; read apart by people who see no red or green, too."""
_MAGNIFIED = 60.0
"""Of a residual vector, in pictures 1920 wide."""
_MARGIN = 60.0
"""Pixels shown around the corners, in pictures 1920 wide."""
_SIGHT = 0.25
"""Length of a camera's line of sight, metres."""
_OF_RIGS = {
    "camera": "camera to camera 0,\nworst of the rig",
    "base0": "hand-eye:\ncamera 0 in the base",
    "base": "any camera in the base,\nworst of the rig",
    "board": "board in the hand",
}
"""True errors of many rigs, as they are called."""
_WITHIN, _BEYOND = "#3b6fd4", "#d9822b"


def figure(
    lenses: Mapping[int, Lens],
    rig: Extrinsics,
    hand: HandEye | None,
    pictures: Mapping[int, UInt8[np.ndarray, "h w *c"]],
) -> bytes:
    """A PNG: a camera's picture with its residual vectors for each, and the rig from above.

    Args:
        lenses: Optics by camera.
        rig: The cameras to each other.
        hand: The rig to the robot, if it was calibrated.
        pictures: One of each camera, to lay the vectors on.
    """
    numbers = sorted(lenses)
    rows = max((len(numbers) + 1) // 2, 2)
    plot = Figure(figsize=(15.0, 3.4 * rows), layout="constrained")
    spec = plot.add_gridspec(rows, 3)
    for i, camera in enumerate(numbers):
        axis = plot.add_subplot(spec[i // 2, i % 2])
        _residuals(axis, camera, lenses[camera], rig, hand, pictures.get(camera))
    _above(plot.add_subplot(spec[:, 2]), numbers, rig, hand)
    out = io.BytesIO()
    plot.savefig(out, format="png", dpi=110)
    return out.getvalue()


def rigs(errors: Mapping[int, Mapping[str, float]], aims: Mapping[str, float]) -> Chart:
    """True errors of many rigs, one point a rig, with the median and what is aimed at.

    Args:
        errors: By seed: millimetres and degrees by name.
        aims: Most that an error should be, for some of the names.
    """
    plot = Figure(figsize=(12.0, 4.4), layout="constrained")
    axes = plot.subplots(1, 2, sharey=True)
    for axis, unit, word in zip(axes, ("mm", "deg"), ("mm", "degrees"), strict=True):
        for y, name in enumerate(_OF_RIGS):
            _row(axis, y, name, unit, errors, aims.get(f"{name}_{unit}"))
        axis.set_xlim(0.0, None)
        axis.grid(visible=True, axis="x", alpha=0.3)
        axis.set_xlabel(f"true error, {word}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(_OF_RIGS)), _OF_RIGS.values())
    axes[0].set_ylim(len(_OF_RIGS) - 0.4, -0.6)
    axes[1].tick_params(left=False)
    axes[0].set_title("Position", fontsize="medium")
    axes[1].set_title("Direction", fontsize="medium")
    plot.suptitle(f"{len(errors)} virtual rigs; the number is the seed of the worst")
    shown: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    plot.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False)
    return Chart(
        figures.as_svg(plot), f"true errors of {len(errors)} rigs, millimetres and degrees"
    )


def _row(
    axis: Axes,
    y: int,
    name: str,
    unit: str,
    errors: Mapping[int, Mapping[str, float]],
    aim: float | None,
) -> None:
    """One kind of error of all rigs; those beyond the aim have their own shape and colour."""
    seeds = list(errors)
    values = np.array([errors[seed][f"{name}_{unit}"] for seed in seeds])
    heights = y + 0.5 * ((np.arange(len(seeds)) + 0.5) / len(seeds) - 0.5)
    beyond = values > (np.inf if aim is None else aim)
    for kind, of, marker, colour, label in (
        ("rigs", ~beyond, "o", _WITHIN, "a rig"),
        ("beyond", beyond, "D", _BEYOND, "a rig beyond the aim"),
    ):
        if of.any():
            axis.plot(
                values[of],
                heights[of],
                marker,
                color=colour,
                ms=6,
                alpha=0.8,
                label=label,
                gid=f"{kind}-{name}_{unit}",
            )
    middle = float(np.median(values))
    axis.plot([middle, middle], [y - 0.34, y + 0.34], color="black", lw=2, label="median")
    if aim is not None:
        axis.plot(
            [aim, aim],
            [y - 0.42, y + 0.42],
            color="#c0182f",
            ls="--",
            lw=2,
            label="aim",
            gid=f"aim-{name}_{unit}",
        )
    worst = int(values.argmax())
    axis.annotate(
        f"{seeds[worst]}",
        (values[worst], heights[worst]),
        (6, 0),
        textcoords="offset points",
        va="center",
        fontsize="small",
    )


def _residuals(
    axis: Axes,
    camera: int,
    lens: Lens,
    rig: Extrinsics,
    hand: HandEye | None,
    picture: UInt8[np.ndarray, "h w *c"] | None,
) -> None:
    long, margin = (x * lens.width / 1920 for x in (_MAGNIFIED, _MARGIN))
    if picture is not None:
        grey = picture if picture.ndim == 2 else picture.mean(axis=2)
        axis.imshow(255 - (255 - grey) * 0.5, cmap="gray", vmin=0, vmax=255)
    places = []
    for name, colour, found in (("hand", "#d9822b", hand), ("table", "#1f4fb0", rig)):
        mine = [v for v in found.views if v.camera == camera] if found else []
        if found and mine:
            at, off = _vectors(mine, lens, found.joint)
            axis.quiver(
                *at.T,
                *(long * off).T,
                angles="xy",
                scale_units="xy",
                scale=1.0,
                width=2e-3,
                color=colour,
                alpha=0.8,
                label=f"{name}: {found.residuals[camera].px:.2f} px",
            )
            places.append(at)
    low, high = [0.0, 0.0], [lens.width - 1.0, lens.height - 1.0]
    if places:
        low = np.maximum(np.concatenate(places).min(axis=0) - margin, low)
        high = np.minimum(np.concatenate(places).max(axis=0) + margin, high)
    axis.set_xlim(low[0], high[0])
    axis.set_ylim(high[1], low[1])
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(
        f"camera {camera}: mean residual of each tag, {_MAGNIFIED:.0f} times", fontsize="medium"
    )
    if places:
        axis.legend(loc="upper left", fontsize="small", framealpha=0.7)


def _vectors(
    views: Sequence[Corners],
    lens: Lens,
    joint: Mapping[tuple[int, int], Float[np.ndarray, " 7"]],
) -> tuple[Float[np.ndarray, "t 2"], Float[np.ndarray, "t 2"]]:
    """Middles of all tags seen, and the mean residual of each (pixels)."""
    off = [apriltag.residuals(v, lens, joint[v.camera, v.placement]) for v in views]
    both = np.concatenate([v.pixels for v in views]), np.concatenate(off)
    at, mean = (x.reshape(-1, 4, 2).mean(axis=1) for x in both)
    return at, mean


def _above(axis: Axes, numbers: Sequence[int], rig: Extrinsics, hand: HandEye | None) -> None:
    """From above, in the robot's base; without it, in a frame whose floor the boards lie in."""
    to_floor = hand.wxyz_xyz_base_cam0 if hand else _floor(list(rig.wxyz_xyz_cam0_board.values()))
    boards = np.array([rigid.compose(to_floor, T)[4:6] for T in rig.wxyz_xyz_cam0_board.values()])
    axis.plot(*boards.T, "s", color="#3b6fd4", ms=3, label="board, table")
    if hand:
        cams = {v.placement: v for v in hand.views}.values()
        carried = [
            rigid.compose(
                rigid.compose(to_floor, rig.wxyz_xyz_cam0_cam[v.camera]),
                hand.joint[v.camera, v.placement],
            )[4:6]
            for v in cams
        ]
        axis.plot(*np.array(carried).T, "o", color="#d9822b", ms=3, label="board, hand")
        axis.plot(0.0, 0.0, "k^", ms=9)
        axis.annotate("robot's base", (0.0, 0.0), xytext=(6, 6), textcoords="offset points")
    for i, camera in enumerate(numbers):
        T = rigid.compose(to_floor, rig.wxyz_xyz_cam0_cam[camera])
        end = rigid.apply(T, np.array([[0.0, 0.0, _SIGHT]]))[0]
        colour = _COLOURS[i % len(_COLOURS)]
        axis.plot([T[4], end[0]], [T[5], end[1]], color=colour, lw=2)
        axis.plot(T[4], T[5], "D", color=colour, ms=7)
        axis.annotate(
            f"camera {camera}\n{T[6]:.2f} m up" if hand else f"camera {camera}",
            (T[4], T[5]),
            xytext=(-60 if T[4] > boards[:, 0].mean() else 8, 8),
            textcoords="offset points",
        )
    axis.set_aspect("equal")
    axis.margins(0.15)
    axis.set_xlabel("x (m)")
    axis.set_ylabel("y (m)")
    axis.set_title("from above, in the robot's base" if hand else "from above", fontsize="medium")
    axis.legend(fontsize="small", framealpha=0.7)


def _floor(boards: Sequence[Float[np.ndarray, " 7"]]) -> Float[np.ndarray, " 7"]:
    """T_floor_cam0 with z against the boards' mean normal."""
    into = np.mean([rigid.matrix(T)[:3, 2] for T in boards], axis=0)
    z = -into / np.linalg.norm(into)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z])
    return rigid.of_matrix(T, "floor")
