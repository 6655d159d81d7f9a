import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from raters import Rater, make_items

from study import app, ballots, plan, server
from study.ballots import Ballots
from study.design import QUESTIONS, Design, Mode
from study.guard import Asgi


def design_of(shown: plan.Plan, mode: Mode = "rank", seed: int = 0) -> Design:
    trials = tuple((trial.object_name, trial.sample) for trial in shown.trials)
    question = QUESTIONS[mode]
    return Design(mode, shown.methods, trials, seed, question, shown.digest())


@pytest.fixture
def small() -> Design:
    """Three methods, two objects with two samples each, without files."""
    trials = (("bottle", "0"), ("bottle", "1"), ("mug", "0"), ("mug", "1"))
    return Design("rank", ("alpha", "beta", "gamma"), trials, 7, "Which?", "digest")


@pytest.fixture
def opened(tmp_path: pathlib.Path, small: Design) -> Iterator[Ballots]:
    with contextlib.closing(ballots.begin(tmp_path / "study", small)) as found:
        yield found


class Switch:
    """Leads requests to the application of the test that runs: starting a server takes a while."""

    app: Asgi

    async def __call__(self, scope, receive, send) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def listening() -> Iterator[tuple[Switch, int]]:
    """A server on a free port of the loopback."""
    switch = Switch()
    with contextlib.closing(server.listen("127.0.0.1", 0)) as free:
        running = server.build(switch)
        thread = threading.Thread(target=running.run, args=([free],))
        thread.start()
        deadline = time.monotonic() + 20
        while not running.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield switch, free.getsockname()[1]
        running.should_exit = True
        thread.join(20)


@pytest.fixture
def serving(
    tmp_path: pathlib.Path, listening: tuple[Switch, int]
) -> Iterator[Callable[..., tuple[str, Ballots]]]:
    """Serves a study in this process; gives its address and its store."""
    switch, port = listening
    with contextlib.ExitStack() as stack:

        def serve(mode: Mode = "rank", items: pathlib.Path | None = None, **settings):
            folder = items or make_items(tmp_path / "items", **settings)
            shown = plan.read(folder)
            store = stack.enter_context(
                contextlib.closing(ballots.begin(tmp_path / "study", design_of(shown, mode)))
            )
            switch.app = app.create(shown, store, server.LOCAL)
            return f"http://127.0.0.1:{port}/s/{store.token}/", store

        yield serve


@pytest.fixture
def rater() -> Iterator[Callable[[str], Rater]]:
    with contextlib.ExitStack() as stack:

        def come(address: str) -> Rater:
            one = Rater(address)
            stack.callback(one.close)
            return one

        yield come
