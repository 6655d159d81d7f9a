"""Progress of long work: a bar in a terminal, lines now and then in a file or pipe."""

import dataclasses
from datetime import timedelta
from typing import Any

from rich.progress import Progress, TaskID

EVERY_S = 30.0
"""Least time between two lines of a task."""
EVERY_SHARE = 0.1
"""Least share of the whole between two lines of a task."""


@dataclasses.dataclass(frozen=True)
class _Told:
    """Where a task began, and where its last line was written."""

    began_s: float
    began: float
    told_s: float
    told: float


class Bar(Progress):
    """As rich's, which into a file writes its last state only; this also writes lines before it.

    A line is due when both `EVERY_S` and `EVERY_SHARE` have passed since the one before; of work
    whose length is not known, `EVERY_S`.
    """

    def __init__(self, *columns: Any, **options: Any) -> None:
        """As rich's."""
        self._told: dict[TaskID, _Told] = {}
        super().__init__(*columns, **options)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's; may write a line."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich's; may write a line."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        """As rich's."""
        task_id = super().add_task(description, start, total, completed, visible, **fields)
        self._begin(task_id)
        return task_id

    def reset(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's."""
        super().reset(task_id, **changes)
        self._begin(task_id)

    def _begin(self, task_id: TaskID) -> None:
        with self._lock:
            now, done = self.get_time(), self._tasks[task_id].completed
            self._told[task_id] = _Told(now, done, now, done)

    def _tell(self, task_id: TaskID) -> None:
        to = self.console
        if to.is_jupyter or (to.is_terminal and not to.is_dumb_terminal):
            return
        with self._lock:
            task, told, now = self._tasks[task_id], self._told[task_id], self.get_time()
            step = 0.0 if task.total is None else EVERY_SHARE * task.total
            # What is done is told by the last state.
            if task.finished or now - told.told_s < EVERY_S or task.completed - told.told < step:
                return
            self._told[task_id] = dataclasses.replace(told, told_s=now, told=task.completed)
            whole = "?" if task.total is None else f"{task.total:.0f}"
            words = [
                task.description.strip(),
                f"{task.completed:.0f}/{whole}",
                _clock(now - told.began_s),
            ]
            won = task.completed - told.began
            if task.total is not None and won > 0:
                left = (now - told.began_s) / won * (task.total - task.completed)
                words.append(f"left {_clock(left)}")
            words += [str(task.fields["rate"])] if "rate" in task.fields else []
        to.print(" ".join(words), highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
