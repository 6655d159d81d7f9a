"""Recipes of food packs, cups and pots: cans, jars, cartons, boxes, bags."""

from __future__ import annotations

from sim.solids import Piece, Recipe, arch, ball, box, column, hull, lathe, moved, rod, wall


def _laundry_pods() -> list[Piece]:
    return [
        *column(
            "body", [(0.048, 0.036, 0), (0.05, 0.038, 0.006), (0.056, 0.042, 0.095)], exponent=3
        ),
        *column(
            "lid", [(0.059, 0.045, 0.094), (0.059, 0.045, 0.112), (0.054, 0.04, 0.12)], exponent=3
        ),
    ]


def _iced_tea() -> list[Piece]:
    body = lathe(
        "body",
        (0.028, 0),
        (0.033, 0.008),
        (0.033, 0.06),
        (0.0295, 0.075),
        (0.0295, 0.1),
        (0.033, 0.115),
    )
    shoulder = lathe("neck", (0.033, 0.115), (0.031, 0.145), (0.013, 0.19), (0.013, 0.196))
    return body + shoulder + lathe("cap", (0.0165, 0.195), (0.0165, 0.212))


def _oyster_sauce() -> list[Piece]:
    body = lathe("body", (0.03, 0), (0.032, 0.004), (0.032, 0.1), (0.027, 0.12), (0.015, 0.15))
    neck = lathe("neck", (0.015, 0.15), (0.0125, 0.2))
    return body + neck + lathe("cap", (0.0155, 0.198), (0.0155, 0.226))


def _guava_juice() -> list[Piece]:
    return [
        *box("body", (0.066, 0.066, 0.15), (0, 0, 0.075), bevel=0.002),
        *hull(
            "top",
            box("top", (0.064, 0.064, 0.004), (0, 0, 0.15)),
            box("top", (0.064, 0.004, 0.004), (0, 0, 0.185)),
        ),
        *box("top", (0.064, 0.004, 0.016), (0, 0, 0.194), bevel=0.0008),
        *moved(
            lathe("cap", (0.0125, 0), (0.0125, 0.012), sides=16), (0, 0.0175, 0.162), (-48, 0, 0)
        ),
    ]


def _can(r: float, h: float, neck: float = 0.006) -> list[Piece]:
    """Drink can: bevelled foot, body, tapered neck with rim."""
    body = lathe("body", (r * 0.8, 0), (r, neck * 1.2), (r, h - 2 * neck))
    return body + lathe("rim", (r, h - 2 * neck), (r * 0.83, h - 0.002), (r * 0.83, h))


def _tin(r: float, h: float) -> list[Piece]:
    """Food tin: straight body between two raised rims."""
    body = lathe("body", (r, 0.003), (r, h - 0.003))
    return (
        lathe("rim", (r + 0.0012, 0), (r + 0.0012, 0.0035))
        + body
        + lathe("rim", (r + 0.0012, h - 0.0035), (r + 0.0012, h))
    )


def _chips_can() -> list[Piece]:
    return [
        *lathe("body", (0.0375, 0), (0.0375, 0.222)),
        *lathe("lid", (0.0395, 0.22), (0.0395, 0.229), (0.036, 0.232)),
    ]


def _goji_jar() -> list[Piece]:
    body = lathe("body", (0.034, 0), (0.039, 0.006), (0.039, 0.075), (0.032, 0.09))
    return body + lathe("lid", (0.0345, 0.088), (0.0345, 0.106), (0.032, 0.109))


def _cosmetics() -> list[Piece]:
    return lathe("body", (0.024, 0), (0.028, 0.004), (0.03, 0.03)) + lathe(
        "lid", (0.031, 0.03), (0.031, 0.048), (0.028, 0.051)
    )


def _yogurt() -> list[Piece]:
    return lathe("body", (0.027, 0), (0.029, 0.003), (0.0355, 0.078)) + lathe(
        "rim", (0.0385, 0.077), (0.0385, 0.081)
    )


def _strawberry_yogurt() -> list[Piece]:
    body = lathe(
        "body",
        (0.023, 0),
        (0.026, 0.005),
        (0.026, 0.035),
        (0.021, 0.05),
        (0.021, 0.058),
        (0.025, 0.072),
    )
    return (
        body
        + lathe("body", (0.025, 0.072), (0.025, 0.092), (0.018, 0.105))
        + lathe("lid", (0.021, 0.104), (0.021, 0.109))
    )


def _noodle_bowl() -> list[Piece]:
    body = lathe("body", (0.046, 0), (0.05, 0.004), (0.066, 0.07))
    return body + lathe("rim", (0.0695, 0.069), (0.0695, 0.073), (0.066, 0.075))


def _mug() -> list[Piece]:
    cup = wall("body", (0.04, 0), (0.04, 0.094), thickness=0.005, sides=20)
    bottom = lathe("bottom", (0.038, 0.0005), (0.038, 0.007), sides=20)
    return cup + bottom + arch("handle", (0.036, 0, 0.048), (0.034, 0.031), 0.0055)


def _tea_cup() -> list[Piece]:
    cup = wall("body", (0.026, 0.006), (0.038, 0.026), (0.043, 0.06), thickness=0.0045, sides=16)
    foot = lathe("bottom", (0.022, 0), (0.0245, 0.012), sides=16)
    return cup + foot + arch("handle", (0.037, 0, 0.036), (0.023, 0.0165), 0.0036)


def _tumbler() -> list[Piece]:
    cup = wall("body", (0.029, 0), (0.036, 0.105), thickness=0.004)
    return cup + lathe("bottom", (0.0275, 0.0005), (0.0278, 0.006))


def _bowl() -> list[Piece]:
    cup = wall("body", (0.032, 0.006), (0.052, 0.024), (0.062, 0.052), thickness=0.005, sides=16)
    return cup + lathe("bottom", (0.03, 0), (0.031, 0.012), sides=16)


def _wine_glass() -> list[Piece]:
    foot = lathe("foot", (0.034, 0), (0.034, 0.003), (0.006, 0.012)) + lathe(
        "stem", (0.0045, 0.008), (0.0045, 0.085), sides=16
    )
    cup = wall("body", (0.022, 0.092), (0.038, 0.132), (0.031, 0.185), thickness=0.003, sides=16)
    return foot + lathe("body", (0.006, 0.08), (0.0205, 0.0935), (0.021, 0.097), sides=16) + cup


def _frying_pan() -> list[Piece]:
    pan = wall("body", (0.075, 0.003), (0.09, 0.04), thickness=0.006) + lathe(
        "bottom", (0.075, 0), (0.0765, 0.008)
    )
    grip = [*rod("handle", (0.085, 0, 0.032), (0.13, 0, 0.043), 0.008, 0.009)]
    return pan + grip + rod("handle", (0.13, 0, 0.043), (0.225, 0, 0.052), 0.0115, 0.0125)


def _chips_bag() -> list[Piece]:
    """Standing pillow pack: a fat middle between two flat seams."""
    middle = column(
        "body",
        [(0.05, 0.008, 0.012), (0.054, 0.027, 0.045), (0.054, 0.027, 0.1), (0.05, 0.008, 0.138)],
        exponent=2.6,
    )
    seams = [box("seam", (0.104, 0.008, 0.014), (0, 0, z), bevel=0.001) for z in (0.007, 0.143)]
    return middle + seams[0] + seams[1]


def _cling_wrap() -> list[Piece]:
    return box("body", (0.29, 0.046, 0.046), (0, 0, 0.023), bevel=0.001)


def _oreo_pack() -> list[Piece]:
    """Biscuit roll lying on a flat side, with crimped ends."""
    roll = moved(
        lathe("body", (0.02, -0.085), (0.0245, -0.08), (0.0245, 0.08), (0.02, 0.085)),
        roll=(0, 90, 0),
    )
    ends = [box("seam", (0.012, 0.036, 0.003), (x, 0, 0), bevel=0.0008) for x in (-0.09, 0.09)]
    return roll + ends[0] + ends[1]


def _magic_cube() -> list[Piece]:
    third, cubes = 0.019, []
    for z in (-third, 0, third):
        cubes += box("body", (0.0565, 0.0565, 0.0175), (0, 0, z), bevel=0.0015)
    return cubes + box("core", (0.052, 0.052, 0.05)) + ball("core", (0.02, 0.02, 0.02))


def _box(x: float, y: float, z: float) -> list[Piece]:
    return box("body", (x, y, z), (0, 0, z / 2), bevel=0.0012)


RECIPES: tuple[Recipe, ...] = (
    Recipe("laundry_pods", "tub", 0.4, _laundry_pods),
    Recipe("iced_tea", "bottle", 0.52, _iced_tea, "axial"),
    Recipe("oyster_sauce", "bottle", 0.6, _oyster_sauce, "axial"),
    Recipe("guava_juice", "box", 0.55, _guava_juice),
    Recipe("beer_can", "can", 0.36, lambda: _can(0.033, 0.122), "axial"),
    Recipe("slim_can", "can", 0.28, lambda: _can(0.0265, 0.135), "axial"),
    Recipe("coconut_cream", "can", 0.42, lambda: _tin(0.037, 0.11), "axial"),
    Recipe("tuna_tin", "can", 0.18, lambda: _tin(0.0415, 0.034), "axial"),
    Recipe("chips_can", "can", 0.2, _chips_can, "axial"),
    Recipe("goji_jar", "jar", 0.35, _goji_jar, "axial"),
    Recipe("cosmetics", "jar", 0.1, _cosmetics, "axial"),
    Recipe("yogurt", "tub", 0.15, _yogurt, "axial"),
    Recipe("strawberry_yogurt", "tub", 0.12, _strawberry_yogurt, "axial"),
    Recipe("noodle_bowl", "tub", 0.12, _noodle_bowl, "axial"),
    Recipe("mug", "cup", 0.32, _mug),
    Recipe("tea_cup", "cup", 0.16, _tea_cup),
    Recipe("tumbler", "cup", 0.11, _tumbler, "axial"),
    Recipe("bowl", "cup", 0.22, _bowl, "axial"),
    Recipe("wine_glass", "cup", 0.13, _wine_glass, "axial"),
    Recipe("frying_pan", "cup", 0.55, _frying_pan),
    Recipe("chips_bag", "bag", 0.06, _chips_bag),
    Recipe("cling_wrap", "box", 0.28, _cling_wrap),
    Recipe("oreo_pack", "bag", 0.15, _oreo_pack),
    Recipe("magic_cube", "box", 0.1, _magic_cube),
    Recipe("cracker_box", "box", 0.3, lambda: _box(0.05, 0.13, 0.18)),
    Recipe("cookies_box", "box", 0.2, lambda: _box(0.042, 0.15, 0.09)),
)
