"""What a person sees of long work: bars in a terminal, lines elsewhere, remarks in both."""

from io import StringIO

import pytest
from rich.console import Console

from tailbind.runtime import progress, remark
from tailbind.workflows.progress import working


def work() -> None:
    with progress("Numbering heavy chains") as tell:
        for done in range(0, 1001, 250):
            tell(done, 1000)
    remark("Warning: 3 are long.")


def test_elsewhere_short_work_is_told_in_no_line_but_its_remarks() -> None:
    out = StringIO()
    with working(Console(file=out, width=100), "Computing features"):
        work()
    assert out.getvalue() == "Warning: 3 are long.\n"


def test_elsewhere_long_work_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("tailbind.workflows.progress.time.monotonic", lambda: next(clock))
    out = StringIO()
    with working(Console(file=out, width=100), "Computing features"):
        work()
    assert out.getvalue().splitlines() == [
        "Numbering heavy chains: 250 of 1,000, 1 min left",
        "Numbering heavy chains: 750 of 1,000, 13 s left",
        "Warning: 3 are long.",
    ]


def test_in_a_terminal_there_are_bars_that_go() -> None:
    out = StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with working(console, "Computing features"):
        with progress("Numbering heavy chains") as tell:
            tell(250, 1000)
        remark("Warning: 3 are long.")
    assert "Computing features …" in out.getvalue()
    assert "Warning: 3 are long." in out.getvalue()
    with progress("Nobody looks") as tell:
        tell(1, 2)
    remark("Nobody listens.")
    assert "Nobody" not in out.getvalue()


def test_remarks_may_go_elsewhere() -> None:
    out, said = StringIO(), list[str]()
    with working(Console(file=out), "Predicting", said.append):
        work()
    assert said == ["Warning: 3 are long."]
    assert out.getvalue() == ""
