"""Somebody who looks at the viewer in a real browser, and what colours say is seen."""

import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

SIZE = {"width": 760, "height": 480}
PICTURE = {"x": 0, "y": 0, "width": 430, "height": 480}
"""The part of the window beside the panel."""
PATIENCE = 60.0


class Visitor:
    """Somebody who looks at a viewer."""

    def __init__(self, browser, address: str) -> None:
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.page = browser.new_page(viewport=SIZE)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("canvas")
        # The page says that there is no graphics card, over the picture.
        self.page.add_style_tag(content=".mantine-Notification-root {display: none !important}")

    def picture(self) -> np.ndarray:
        shot = self.page.screenshot(clip=PICTURE)
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def until(self, there: Callable[[np.ndarray], bool]) -> np.ndarray:
        """Waits until a picture is as it should be, and gives it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            picture = self.picture()
            if there(picture):
                return picture
            assert time.monotonic() < deadline, "the picture never became as it should"

    def settled(self) -> np.ndarray:
        """Waits until nothing changes any more."""
        before = self.picture()

        def still(picture: np.ndarray) -> bool:
            nonlocal before
            same, before = (np.abs(picture - before) > 24).any(-1).mean() < 1e-3, picture
            return same

        return self.until(still)

    def press(self, label: str) -> None:
        self.page.get_by_label(label, exact=True).click()

    def slide(self, number: int, key: str) -> None:
        self.page.get_by_role("slider").nth(number).press(key)


def share(picture: np.ndarray, kind: str) -> float:
    """Share of a picture that has the colour of something."""
    r, g, b = np.moveaxis(picture, -1, 0)
    found = {
        "object": (r > g + 15) & (g > b + 25),  # wood
        "hand": (np.abs(r - g) < 25) & (b > r + 8) & (b < r + 70) & (b < 245),  # bluish grey
        "touched": (r > 190) & (g < 110) & (b < 90),
        "far": b > r + 90,
    }[kind]
    return float(found.mean())
