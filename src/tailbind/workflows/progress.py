"""What a person sees while a run works: a progress bar in a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tailbind.training.loop import EpochResult

#: Where nobody watches a terminal, a line at most this often (seconds), beside the first and the last epoch.
LINE_EVERY_SECONDS: Final = 15.0


def default_console() -> Console:
    """Return a console for standard output; in a notebook one that writes plain lines, which need no widgets."""
    return Console(force_jupyter=False, force_terminal=False if "ipykernel" in sys.modules else None)


class EpochProgress:
    """Shows epochs as they end, with the time that is left.

    Parameters
    ----------
    console : where to
    total : epochs of the whole run
    done : epochs that an earlier process finished
    """

    def __init__(self, console: Console, total: int, done: int = 0) -> None:
        self.console = console
        self.total = total
        self.done = done
        self._started = time.monotonic()
        self._spoken = -LINE_EVERY_SECONDS
        self._first = done + 1
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("Training"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"), TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"), TextColumn("{task.fields[losses]}"), console=console,
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
        losses = f"train {result.train_loss:.4g}  val {result.val_loss:.4g}  lr {result.lr:.2g}"
        if self._bar:
            self._bar.update(self._task, completed=result.epoch, left=left, losses=losses)
            return
        if result.epoch in (self._first, self.total) or elapsed - self._spoken >= LINE_EVERY_SECONDS:
            self._spoken = elapsed
            self.console.print(
                f"epoch {result.epoch}/{self.total}  {losses}  {result.rows_per_second:,.0f} rows/s  {left}",
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
