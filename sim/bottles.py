"""Recipes of household chemicals and toiletries: spray bottles, jugs, lotions."""

from __future__ import annotations

from sim.solids import Piece, Recipe, box, column, hull, lathe, plate, rod, tube


def _trigger_head(z: float, scale: float = 1.0) -> list[Piece]:
    """Trigger spray head whose collar starts at height z; the nozzle points to +x."""
    s = scale
    head = [
        (-0.034, 0.028),
        (-0.034, 0.042),
        (-0.012, 0.058),
        (0.036, 0.058),
        (0.042, 0.052),
        (0.042, 0.03),
    ]
    lever = [
        (0.022 * s, 0, z + 0.032 * s),
        (0.031 * s, 0, z + 0.008 * s),
        (0.042 * s, 0, z - 0.018 * s),
    ]
    return [
        *lathe(
            "cap",
            (0.0155 * s, z - 0.004),
            (0.0155 * s, z + 0.016 * s),
            (0.012 * s, z + 0.03 * s),
            sides=20,
        ),
        *plate("head", [(x * s, z + h * s) for x, h in head], 0.026 * s),
        *rod("nozzle", (0.04 * s, 0, z + 0.044 * s), (0.05 * s, 0, z + 0.044 * s), 0.008 * s),
        *tube("trigger", lever, 0.0052 * s),
    ]


def _pump_head(z: float) -> list[Piece]:
    """Lotion pump whose collar starts at height z; the spout points to +x."""
    return [
        *lathe("cap", (0.014, z), (0.014, z + 0.014), (0.008, z + 0.018)),
        *lathe("neck", (0.0045, z + 0.016), (0.0045, z + 0.032), sides=12),
        *hull(
            "pump",
            box("pump", (0.03, 0.02, 0.012), (0.002, 0, z + 0.037), bevel=0.003),
            box("pump", (0.008, 0.01, 0.008), (0.034, 0, z + 0.034), bevel=0.002),
        ),
    ]


def _bathroom_cleaner() -> list[Piece]:
    body = [
        (0.036, 0.026, 0),
        (0.04, 0.03, 0.006),
        (0.04, 0.03, 0.11),
        (0.026, 0.022, 0.155),
        (0.014, 0.014, 0.18),
    ]
    return column("body", body, exponent=2.6) + _trigger_head(0.182)


def _glass_cleaner() -> list[Piece]:
    waist = [(0.042, 0.026, 0), (0.044, 0.028, 0.01), (0.044, 0.028, 0.06), (0.032, 0.022, 0.105)]
    top = [(0.032, 0.022, 0.105), (0.034, 0.023, 0.15), (0.014, 0.014, 0.185)]
    return (
        column("body", waist, exponent=3.5) + column("neck", top, exponent=3) + _trigger_head(0.187)
    )


def _multi_purpose_cleaner() -> list[Piece]:
    return lathe(
        "body",
        (0.036, 0),
        (0.039, 0.005),
        (0.039, 0.1),
        (0.03, 0.125),
        (0.022, 0.15),
        (0.0135, 0.172),
    ) + (_trigger_head(0.174))


def _garden_sprayer() -> list[Piece]:
    body = lathe(
        "body",
        (0.04, 0),
        (0.044, 0.006),
        (0.044, 0.05),
        (0.036, 0.085),
        (0.02, 0.105),
        (0.0145, 0.112),
    )
    return body + _trigger_head(0.114, 1.1)


def _small_sprayer() -> list[Piece]:
    return [
        *lathe("body", (0.0185, 0), (0.02, 0.003), (0.02, 0.082), (0.011, 0.094)),
        *lathe("neck", (0.0115, 0.093), (0.0115, 0.104), sides=16),
        *lathe("cap", (0.0085, 0.103), (0.0085, 0.122), (0.006, 0.126), sides=16),
        *rod("nozzle", (0.006, 0, 0.116), (0.0105, 0, 0.116), 0.003, sides=8),
    ]


def _air_duster() -> list[Piece]:
    return [
        *lathe("body", (0.031, 0), (0.033, 0.004), (0.033, 0.16), (0.026, 0.174), (0.017, 0.18)),
        *lathe("neck", (0.0165, 0.179), (0.0165, 0.192), sides=20),
        *box("head", (0.03, 0.022, 0.02), (0.002, 0, 0.2), bevel=0.003),
        *tube("trigger", [(0.012, 0, 0.206), (0.03, 0, 0.2), (0.036, 0, 0.178)], 0.004),
    ]


def _toilet_cleaner() -> list[Piece]:
    body = [(0.034, 0.025, 0), (0.038, 0.029, 0.008), (0.036, 0.028, 0.13), (0.02, 0.018, 0.17)]
    return [
        *column("body", body, exponent=2.5),
        *rod("neck", (0, 0, 0.172), (0.012, 0, 0.2), 0.014),
        *rod("neck", (0.012, 0, 0.2), (0.034, 0, 0.222), 0.013, 0.012),
        *rod("cap", (0.034, 0, 0.222), (0.052, 0, 0.239), 0.0145, 0.01),
    ]


def _drain_cleaner() -> list[Piece]:
    body = [
        (0.046, 0.032, 0),
        (0.05, 0.036, 0.008),
        (0.05, 0.036, 0.12),
        (0.03, 0.026, 0.16),
        (0.016, 0.016, 0.185),
    ]
    return [
        *column("body", body, exponent=3),
        *lathe("cap", (0.0185, 0.184), (0.0185, 0.21), (0.016, 0.214)),
        *tube(
            "handle",
            [
                (-0.014, 0, 0.178),
                (-0.052, 0, 0.17),
                (-0.068, 0, 0.135),
                (-0.066, 0, 0.09),
                (-0.044, 0, 0.07),
            ],
            0.0085,
            10,
        ),
    ]


def _jug(w: float, d: float, h: float, grip: float) -> list[Piece]:
    """Detergent jug: block body, spout with cap toward +x, loop handle behind."""
    body = [(w * 0.93, d * 0.9, 0), (w, d, 0.008), (w, d, h * 0.7), (w * 0.62, d * 0.72, h)]
    cap = lathe(
        "cap", (0.026, h - 0.004), (0.026, h + 0.03), (0.022, h + 0.034), center=(0.2 * w, 0)
    )
    back = -w - 0.034
    loop = [
        (-0.45 * w, 0, h - 0.002),
        (back + 0.012, 0, h + 0.004),
        (back, 0, h - 0.03),
        (back, 0, h * 0.45),
        (back + 0.014, 0, h * 0.32),
        (-0.9 * w, 0, h * 0.26),
    ]
    return column("body", body, exponent=4) + cap + tube("handle", loop, grip, 10)


def _rinse_aid() -> list[Piece]:
    return [
        *column(
            "body",
            [(0.034, 0.018, 0), (0.036, 0.02, 0.005), (0.036, 0.02, 0.12), (0.016, 0.014, 0.15)],
            exponent=3,
        ),
        *lathe("cap", (0.0145, 0.149), (0.0145, 0.17), (0.008, 0.182), sides=20),
    ]


def _body_lotion() -> list[Piece]:
    body = [
        (0.034, 0.022, 0),
        (0.037, 0.025, 0.006),
        (0.037, 0.025, 0.12),
        (0.03, 0.021, 0.136),
        (0.013, 0.012, 0.146),
    ]
    return column("body", body, exponent=2.6) + _pump_head(0.145)


def _body_wash() -> list[Piece]:
    body = [
        (0.03, 0.02, 0),
        (0.036, 0.024, 0.02),
        (0.038, 0.025, 0.09),
        (0.033, 0.021, 0.16),
        (0.026, 0.017, 0.172),
    ]
    return column("body", body) + column(
        "cap", [(0.026, 0.017, 0.172), (0.025, 0.016, 0.198), (0.02, 0.012, 0.203)]
    )


def _daily_lotion() -> list[Piece]:
    cap = column("cap", [(0.024, 0.016, 0), (0.026, 0.018, 0.003), (0.026, 0.018, 0.026)])
    tube_body = column(
        "body",
        [(0.027, 0.019, 0.025), (0.03, 0.017, 0.08), (0.031, 0.01, 0.125), (0.032, 0.0035, 0.155)],
    )
    return cap + tube_body


def _essential_oil() -> list[Piece]:
    body = lathe("body", (0.0185, 0), (0.02, 0.002), (0.02, 0.055), (0.01, 0.066))
    return (
        body
        + lathe("cap", (0.012, 0.064), (0.0115, 0.082))
        + lathe("cap", (0.0075, 0.082), (0.006, 0.098))
    )


RECIPES: tuple[Recipe, ...] = (
    Recipe("air_duster", "sprayer", 0.32, _air_duster),
    Recipe("bathroom_cleaner", "sprayer", 0.55, _bathroom_cleaner),
    Recipe("glass_cleaner", "sprayer", 0.52, _glass_cleaner),
    Recipe("multi_purpose_cleaner", "sprayer", 0.5, _multi_purpose_cleaner),
    Recipe("garden_sprayer", "sprayer", 0.3, _garden_sprayer),
    Recipe("small_sprayer", "sprayer", 0.09, _small_sprayer),
    Recipe("toilet_cleaner", "bottle", 0.6, _toilet_cleaner),
    Recipe("drain_cleaner", "bottle", 0.7, _drain_cleaner),
    Recipe("laundry_detergent", "bottle", 0.75, lambda: _jug(0.05, 0.036, 0.16, 0.0085)),
    Recipe("big_detergent", "bottle", 1.0, lambda: _jug(0.065, 0.042, 0.2, 0.0095)),
    Recipe("rinse_aid", "bottle", 0.25, _rinse_aid),
    Recipe("body_lotion", "bottle", 0.33, _body_lotion),
    Recipe("body_wash", "bottle", 0.3, _body_wash),
    Recipe("daily_lotion", "bottle", 0.12, _daily_lotion),
    Recipe("essential_oil", "bottle", 0.08, _essential_oil, "axial"),
)
