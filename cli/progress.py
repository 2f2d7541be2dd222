"""Bars for jobs that are waited for, on a terminal: they come with the first word of progress, and go.

Nothing is loaded or drawn for jobs that say nothing of how far they are, nor where
stderr is no terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from jobd.cli.render import progress_text
from jobd.cli.text import one_line

if TYPE_CHECKING:
    import rich.progress

    from jobd.model.job import Progress

MOST_BARS = 10


class Bars:
    """A bar for each job, as many as fit; for use as a context manager."""

    def __init__(self) -> None:
        self._display: rich.progress.Progress | None = None
        self._tasks: dict[int, rich.progress.TaskID] = {}

    def show(self, number: int, progress: Progress) -> None:
        """Show how far a job is."""
        if self._display is None:
            self._display = _display()
            self._display.start()
        task = self._tasks.get(number)
        if task is None:
            if len(self._tasks) == MOST_BARS:
                return
            task = self._tasks[number] = self._display.add_task(f"job {number}", text="")
        text = one_line(progress.text) if progress.total else progress_text(progress)
        self._display.update(task, completed=progress.done, total=progress.total or None, text=text)
        self._display.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._display is not None:
            self._display.stop()


def _display() -> rich.progress.Progress:
    # rich takes 60 ms, which only those pay who see something of it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,  # it is drawn when there is something new
        transient=True,
    )
