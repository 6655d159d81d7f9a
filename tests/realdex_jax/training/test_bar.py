import io

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn

from realdex_jax.training.bar import Bar


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def written(
    seconds: float,
    steps: int,
    *,
    start: int = 0,
    total: int | None = 600,
    terminal: bool = False,
    rate: str | None = None,
) -> list[str]:
    """What is written while `steps` steps are done, `seconds` each."""
    clock, out = Clock(), io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, force_interactive=False, width=100, _environ={}
    )
    bar = Bar(
        TextColumn("state {task.completed:.0f}"),
        BarColumn(),
        console=console,
        get_time=clock,
        auto_refresh=False,
    )
    with bar:
        fields = {} if rate is None else {"rate": rate}
        task = bar.add_task("label", True, total, start, True, **fields)
        for _ in range(steps):
            clock.now += seconds
            bar.advance(task)
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "first", "second"),
    [
        (1.0, "label 60/600 0:01:00 left 0:09:00", "label 120/600 0:02:00 left 0:08:00"),
        (0.1, "label 300/600 0:00:30 left 0:00:30", "state 600"),
    ],
)
def test_a_line_comes_when_both_a_tenth_and_half_a_minute_have_passed(
    seconds: float, first: str, second: str
):
    # A hundredth more than needed: sums of 0.1 fall short of 30.
    lines = written(seconds * 1.0001, 600)
    assert lines[0] == first
    assert lines[1].startswith(second)
    assert lines[-1].startswith("state 600")


def test_quick_work_shows_its_last_state_only():
    assert len(written(0.01, 600)) == 1


def test_work_that_goes_on_counts_from_where_it_starts_and_tells_its_rate():
    lines = written(1.0, 100, start=300, rate="2.0 steps/s")
    assert lines[0] == "label 360/600 0:01:00 left 0:04:00 2.0 steps/s"
    assert len(lines) == 2


def test_work_of_unknown_length_is_told_by_time():
    assert written(10.0, 7, total=None)[:2] == ["label 3/? 0:00:30", "label 6/? 0:01:00"]


def test_a_terminal_has_no_lines():
    assert not any("label" in line for line in written(1.0, 600, terminal=True))


def test_a_task_that_begins_anew_is_told_anew():
    clock, out = Clock(), io.StringIO()
    with Bar(console=Console(file=out, width=100), get_time=clock, auto_refresh=False) as bar:
        task = bar.add_task("one", total=10)
        clock.now = 40.0
        bar.update(task, completed=5)
        bar.reset(task, total=10, description="two")
        clock.now = 80.0
        bar.update(task, completed=5)
    assert out.getvalue().splitlines()[:2] == [
        "one 5/10 0:00:40 left 0:00:40",
        "two 5/10 0:00:40 left 0:00:40",
    ]
