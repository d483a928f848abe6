"""What a person sees while a run works: a progress bar in a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tailbind.runtime import remarks_to, showing_progress
from tailbind.training.results import EpochResult
from tailbind.training.selection import VAL_LOSS

#: Where nobody watches a terminal, a line at most this often (seconds), beside the first and the last epoch.
LINE_EVERY_SECONDS: Final = 15.0


def default_console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or error; in a notebook it writes plain lines, which need no widgets."""
    return Console(stderr=stderr, force_jupyter=False, force_terminal=False if "ipykernel" in sys.modules else None)


def say(console: Console, text: str) -> None:
    """Print a sentence; one that begins with "Warning: " in yellow."""
    style = "yellow" if text.startswith("Warning: ") else None
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def warn(console: Console, text: str) -> None:
    """Print a warning."""
    say(console, f"Warning: {text}")


@contextlib.contextmanager
def working(console: Console, title: str, notify: Callable[[str], None] | None = None) -> Iterator[None]:
    """Show that work goes on and how far its parts are; print the remarks made inside.

    In a terminal, a line that is gone when the work is done. Elsewhere, a line for a part that takes long.

    Parameters
    ----------
    console : where to
    title : what is done, as in "Computing features"
    notify : told the remarks; the console unless given
    """

    def tell(text: str) -> None:
        say(console, text)

    with remarks_to(notify or tell):
        if not console.is_terminal:
            with showing_progress(lambda what: _lines(console, what)):
                yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            bar.add_task(f"{title} …", total=None)
            with showing_progress(lambda what: _task(bar, what)):
                yield


@contextlib.contextmanager
def _task(bar: Progress, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a part of the work as a bar of its own."""
    task = bar.add_task(what, total=None)
    try:
        yield lambda done, of: bar.update(task, completed=done, total=of)
    finally:
        bar.remove_task(task)


@contextlib.contextmanager
def _lines(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Tell of a part of the work in lines, the first when it has taken a while."""
    started = spoken = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal spoken
        now = time.monotonic()
        if done and now - spoken >= LINE_EVERY_SECONDS:
            spoken = now
            say(console, f"{what}: {done:,} of {of:,}, {_duration((now - started) / done * (of - done))} left")

    yield tell


class EpochProgress:
    """Shows epochs as they end, with the time that is left.

    Parameters
    ----------
    console : where to
    total : epochs of the whole run
    done : epochs that an earlier process finished
    select_by : what the best epoch is best by; shown beside the losses where it is none of them
    name : of what is trained, where a run trains several
    """

    def __init__(self, console: Console, total: int, done: int = 0, select_by: str = VAL_LOSS, name: str = "") -> None:
        self.console = console
        self.total = total
        self.done = done
        self.select_by = select_by
        self.name = name
        self._started = time.monotonic()
        self._spoken = -LINE_EVERY_SECONDS
        self._first = done + 1
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn(f"Training {name}".rstrip()), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
                TimeElapsedColumn(), TextColumn("{task.fields[left]}"), TextColumn("{task.fields[losses]}"),
                console=console,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total, completed=done, left="", losses="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, result: EpochResult) -> None:
        """Show an epoch that has ended."""
        elapsed = time.monotonic() - self._started
        per_epoch = elapsed / (result.epoch - self._first + 1)
        left = f"{_duration(per_epoch * (self.total - result.epoch))} left"
        score = "" if self.select_by == VAL_LOSS else f"  {self.select_by} {result.val_score:.4g}"
        losses = f"train {result.train_loss:.4g}  val {result.val_loss:.4g}{score}  lr {result.lr:.2g}"
        if self._bar:
            self._bar.update(self._task, completed=result.epoch, left=left, losses=losses)
            return
        if result.epoch == self._first or result.is_last or elapsed - self._spoken >= LINE_EVERY_SECONDS:
            self._spoken = elapsed
            epoch = f"{self.name} epoch {result.epoch}/{self.total}".lstrip()
            self.console.print(
                f"{epoch}  {losses}  {result.rows_per_second:,.0f} rows/s  {left}",
                highlight=False,
                soft_wrap=True,
            )


def _duration(seconds: float) -> str:
    """Return a duration as a person says it.

    >>> _duration(59.6), _duration(3700)
    ('1 min', '1 h 02 min')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
