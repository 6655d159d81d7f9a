"""Recipes of toys and hand tools."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sim.solids import Piece, Recipe, arch, ball, box, column, hull, lathe, moved, plate, rod, tube


def _both(pieces: list[Piece]) -> list[Piece]:
    """The pieces and their mirror images in y."""
    mirror = np.array([1.0, -1.0, 1.0])
    return pieces + [Piece(piece.label, piece.vertices * mirror) for piece in pieces]


def _duck() -> list[Piece]:
    bill = hull(
        "bill",
        ball("bill", (0.012, 0.013, 0.004), (0.053, 0, 0.083), 8),
        ball("bill", (0.006, 0.009, 0.008), (0.04, 0, 0.085), 8),
    )
    return [
        *column(
            "body",
            [(0.032, 0.024, 0), (0.045, 0.033, 0.012), (0.047, 0.034, 0.03), (0.036, 0.027, 0.052)],
            sides=20,
        ),
        *ball("head", (0.025, 0.024, 0.024), (0.022, 0, 0.084)),
        *lathe("neck", (0.024, 0.05), (0.018, 0.068), sides=16, center=(0.018, 0)),
        *bill,
        *rod("tail", (-0.032, 0, 0.038), (-0.058, 0, 0.062), 0.016, 0.005),
        *_both(ball("wing", (0.024, 0.008, 0.014), (-0.006, 0.032, 0.034))),
    ]


def _dinosaur() -> list[Piece]:
    return [
        *rod("body", (-0.022, 0, 0.048), (0.022, 0, 0.052), 0.026, 0.023),
        *_both(rod("leg", (0.02, 0.015, 0.045), (0.023, 0.017, 0.0065), 0.011, 0.01)),
        *_both(rod("leg", (-0.02, 0.016, 0.045), (-0.022, 0.018, 0.0065), 0.0125, 0.01)),
        *rod("neck", (0.028, 0, 0.06), (0.048, 0, 0.1), 0.0165, 0.011),
        *rod("head", (0.046, 0, 0.108), (0.07, 0, 0.104), 0.0135, 0.0095),
        *rod("tail", (-0.034, 0, 0.048), (-0.066, 0, 0.034), 0.018, 0.011),
        *rod("tail", (-0.066, 0, 0.034), (-0.098, 0, 0.03), 0.011, 0.005),
        *[
            p
            for x, z in ((-0.03, 0.07), (-0.008, 0.073), (0.014, 0.073))
            for p in plate(
                "plates", [(x - 0.011, z - 0.002), (x + 0.011, z - 0.002), (x, z + 0.017)], 0.006
            )
        ],
    ]


def _elephant_watering_can() -> list[Piece]:
    trunk = [(0.04, 0, 0.06), (0.068, 0, 0.052), (0.09, 0, 0.075), (0.104, 0, 0.11)]
    return [
        *column(
            "body",
            [
                (0.034, 0.03, 0.018),
                (0.046, 0.042, 0.032),
                (0.048, 0.044, 0.06),
                (0.036, 0.034, 0.092),
            ],
            sides=20,
        ),
        *_both(lathe("leg", (0.013, 0), (0.015, 0.03), sides=12, center=(0.022, 0.02))),
        *_both(lathe("leg", (0.013, 0), (0.015, 0.03), sides=12, center=(-0.022, 0.02))),
        *ball("head", (0.03, 0.031, 0.03), (0.036, 0, 0.078)),
        *tube("trunk", trunk, 0.0085, 10),
        *lathe("spout", (0.006, 0.104), (0.015, 0.124), sides=16, center=(0.105, 0)),
        *_both(
            plate(
                "ear",
                [(0.012, 0.068), (0.036, 0.062), (0.04, 0.09), (0.024, 0.106), (0.008, 0.096)],
                0.006,
                0.034,
            )
        ),
        *arch("handle", (-0.026, 0, 0.07), (0.05, 0.034), 0.007, span=(82, 248), parts=6, sides=10),
    ]


def _lion() -> list[Piece]:
    mane = moved(
        lathe("mane", (0.026, -0.009), (0.035, -0.004), (0.035, 0.004), (0.026, 0.009), sides=20),
        (0.024, 0, 0.078),
        (0, 90, 0),
    )
    return [
        *rod("body", (-0.03, 0, 0.05), (0.016, 0, 0.053), 0.025, 0.024),
        *_both(rod("leg", (0.016, 0.014, 0.045), (0.018, 0.016, 0.0065), 0.011, 0.01)),
        *_both(rod("leg", (-0.034, 0.014, 0.045), (-0.036, 0.016, 0.0065), 0.0115, 0.01)),
        *mane,
        *ball("head", (0.023, 0.024, 0.024), (0.036, 0, 0.079)),
        *rod("head", (0.05, 0, 0.073), (0.058, 0, 0.072), 0.0105, 0.009),
        *_both(ball("ear", (0.006, 0.009, 0.01), (0.028, 0.023, 0.106), 8)),
        *tube("tail", [(-0.05, 0, 0.055), (-0.076, 0, 0.06), (-0.086, 0, 0.085)], 0.0048),
        *ball("tail", (0.009, 0.009, 0.012), (-0.086, 0, 0.092), 8),
    ]


def _penguin() -> list[Piece]:
    return [
        *column(
            "body",
            [
                (0.026, 0.03, 0.0),
                (0.036, 0.042, 0.022),
                (0.036, 0.042, 0.05),
                (0.028, 0.033, 0.078),
            ],
            sides=20,
        ),
        *ball("head", (0.029, 0.032, 0.028), (0.002, 0, 0.096)),
        *rod("bill", (0.024, 0, 0.093), (0.041, 0, 0.09), 0.0085, 0.004, 8),
        *_both(rod("wing", (0, 0.037, 0.07), (-0.004, 0.05, 0.034), 0.0085, 0.006, 8)),
        *_both(ball("foot", (0.02, 0.014, 0.006), (0.02, 0.018, 0.006), 8)),
        *rod("tail", (-0.03, 0, 0.016), (-0.045, 0, 0.009), 0.009, 0.005, 8),
    ]


def _coconut_tree() -> list[Piece]:
    leaves: list[Piece] = []
    for turn in range(0, 360, 60):
        blade = plate("leaf", [(0, 0.002), (0.028, 0.008), (0.05, -0.012), (0.028, -0.004)], 0.02)
        leaves += moved(blade, (0.012, 0, 0.128), (0, 0, turn))
    trunk = rod("trunk", (0, 0, 0.02), (0.006, 0, 0.07), 0.0125, 0.0105) + rod(
        "trunk", (0.006, 0, 0.07), (0.012, 0, 0.122), 0.0105, 0.0095
    )
    nuts = [
        p
        for y in (-0.011, 0.011)
        for p in ball("nut", (0.0095, 0.0095, 0.0095), (0.02, y, 0.115), 8)
    ]
    return (
        lathe("base", (0.037, 0), (0.037, 0.006), (0.03, 0.018), (0.015, 0.026))
        + trunk
        + nuts
        + leaves
    )


def _magnet_toy() -> list[Piece]:
    """Horseshoe magnet standing on its bow."""
    bow: list[Piece] = []
    angles = np.deg2rad(np.linspace(180, 360, 9))
    for a, b in pairwise(angles):
        outline = [
            (r * np.cos(t), 0.043 + r * np.sin(t))
            for r, t in ((0.022, a), (0.043, a), (0.043, b), (0.022, b))
        ]
        bow += plate("body", outline, 0.026)
    arms = box("body", (0.021, 0.026, 0.03), (0.0325, 0, 0.058)) + box(
        "body", (0.021, 0.026, 0.03), (-0.0325, 0, 0.058)
    )
    tips = box("tip", (0.022, 0.027, 0.022), (0.0325, 0, 0.083), 0.002) + box(
        "tip", (0.022, 0.027, 0.022), (-0.0325, 0, 0.083), 0.002
    )
    return bow + arms + tips


def _big_eye_toy() -> list[Piece]:
    return [
        *ball("body", (0.036, 0.038, 0.034), (0, 0, 0.038), 12),
        *_both(ball("eye", (0.016, 0.017, 0.018), (0.014, 0.018, 0.074))),
        *_both(ball("foot", (0.02, 0.013, 0.008), (0.006, 0.022, 0.008), 8)),
        *_both(rod("arm", (0.004, 0.034, 0.046), (0.022, 0.047, 0.034), 0.008, 0.007, 8)),
        *tube("horn", [(-0.012, 0, 0.066), (-0.018, 0, 0.1)], 0.0055),
    ]


def _hammer() -> list[Piece]:
    """Claw hammer lying on its side, handle along x."""
    z = 0.0155
    claw = moved(
        plate(
            "claw",
            [(-0.012, 0), (0.01, 0), (0.004, 0.034), (-0.012, 0.046), (-0.016, 0.044)],
            0.024,
        ),
        (0.232, 0, z),
        (-90, 0, 0),
    )
    face = moved(
        lathe(
            "head",
            (0.011, 0),
            (0.011, 0.018),
            (0.0145, 0.022),
            (0.0145, 0.034),
            (0.013, 0.036),
            sides=16,
        ),
        (0.232, 0, z),
        (90, 0, 0),
    )
    return [
        *rod("handle", (0.01, 0, z), (0.11, 0, z), 0.0155, 0.0135),
        *rod("handle", (0.105, 0, z), (0.232, 0, z), 0.0105, 0.0095),
        *box("head", (0.03, 0.026, 0.031), (0.232, 0, z), 0.003),
        *face,
        *claw,
    ]


def _screwdriver() -> list[Piece]:
    """Screwdriver lying along x."""
    z = 0.0155
    grip = lathe(
        "handle",
        (0.011, 0),
        (0.0155, 0.006),
        (0.0155, 0.05),
        (0.0125, 0.075),
        (0.0135, 0.088),
        (0.009, 0.098),
        sides=12,
    )
    shaft = lathe("shaft", (0.0042, 0.096), (0.0042, 0.19), sides=12) + column(
        "tip", [(0.0042, 0.0042, 0.19), (0.005, 0.0015, 0.204)], sides=12
    )
    # It rests on the belly of the grip and on its tip, hence the tilt.
    return moved(grip + shaft, (0, 0, z), (0, 94.2, 0))


def _dish_brush() -> list[Piece]:
    """Dish brush lying with its bristles down."""
    bristles = column(
        "bristles", [(0.026, 0.021, 0), (0.023, 0.018, 0.028)], sides=16, center=(0.19, 0)
    )
    head = column(
        "head",
        [(0.029, 0.023, 0.026), (0.03, 0.024, 0.036), (0.022, 0.016, 0.042)],
        sides=16,
        center=(0.19, 0),
    )
    grip = [(0.17, 0, 0.036), (0.12, 0, 0.045), (0.07, 0, 0.036)]
    return (
        bristles
        + head
        + tube("handle", grip, 0.0075, 10)
        + rod("handle", (0.07, 0, 0.036), (0.0, 0, 0.0128), 0.0105, 0.013)
    )


RECIPES: tuple[Recipe, ...] = (
    Recipe("duck_toy", "toy", 0.09, _duck),
    Recipe("dinosaur_toy", "toy", 0.14, _dinosaur),
    Recipe("elephant_watering_can", "toy", 0.24, _elephant_watering_can),
    Recipe("lion_toy", "toy", 0.15, _lion),
    Recipe("penguin_toy", "toy", 0.16, _penguin),
    Recipe("coconut_tree_toy", "toy", 0.1, _coconut_tree),
    Recipe("magnet_toy", "toy", 0.13, _magnet_toy),
    Recipe("big_eye_toy", "toy", 0.12, _big_eye_toy),
    Recipe("hammer", "tool", 0.48, _hammer),
    Recipe("screwdriver", "tool", 0.11, _screwdriver),
    Recipe("dish_brush", "tool", 0.09, _dish_brush),
)
