import contextlib
import threading
from collections.abc import Callable, Iterator

import browser
import pytest
from visitor import Visitor


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    # WebGL without a graphics card.
    with browser.headless(
        "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"
    ) as started:
        yield started


@pytest.fixture
def visit(chromium) -> Iterator[Callable[..., Visitor]]:
    """Opens pages, which may ask nobody but their server for anything."""
    opened: list[tuple[Visitor, str]] = []

    def come(shown) -> Visitor:
        opened.append((Visitor(chromium, shown.address), shown.address))
        return opened[-1][0]

    yield come
    for visitor, address in opened:
        visitor.page.close()
        assert visitor.wrong == []
        page = address.partition("?")[0]
        asked = {url for url in visitor.asked if not url.startswith(("data:", "blob:"))}
        assert asked == {address, page}


@pytest.fixture
def ticking() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """Lets an app go on in a thread, as `App.run` does."""

    @contextlib.contextmanager
    def tick(app) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=app.run, args=[over], name="ticks", daemon=True)
        thread.start()
        yield
        over.set()
        thread.join()

    return tick
