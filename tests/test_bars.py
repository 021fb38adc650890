"""Progress where there is no terminal: how many lines, when, and what they say."""

from __future__ import annotations

import io

import pytest

from mvl_auto.bars import bars, notebook_bars, plain_lines, terminal_bars
from mvl_auto.text import clock_text


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def work(amounts: list[float], pause: float, total: float, done: float = 0, note: str = "") -> list[str]:
    clock, stream = Clock(), io.StringIO()
    with plain_lines(stream, clock)("training", total, "step", done) as advance:
        for amount in amounts:
            clock.now += pause
            advance(amount, note)
    return stream.getvalue().splitlines()


def test_fast_work_is_one_line_in_all():
    assert work([1] * 1000, pause=0.001, total=1000) == ["training: 100 %, 1000/1000 steps, took 0:01"]


def test_steady_work_is_a_line_for_each_tenth():
    lines = work([1] * 100, pause=1, total=100)
    assert lines == [
        *(f"training: {p} %, {p}/100 steps, {clock_text(100 - p)} left" for p in range(10, 100, 10)),
        "training: 100 %, 100/100 steps, took 1:40",
    ]


def test_slow_work_is_a_line_every_half_minute():
    lines = work([1] * 30, pause=20, total=1000)
    assert "".join(line.split()[1] for line in lines[:-1]) == "000011111222223"  # 0.2 %, 0.4 %, ... rounded down


def test_never_two_lines_within_two_seconds():
    assert len(work([1] * 10, pause=0.5, total=10)) == 3


def test_the_note_stays_until_the_next_one():
    clock, stream = Clock(), io.StringIO()
    with plain_lines(stream, clock)("training", 4) as advance:
        advance(1, "loss 0.5")
        clock.now += 31
        advance(1)
    assert stream.getvalue().splitlines()[0] == "training: 50 %, 2/4 cases, 0:31 left, loss 0.5"


def test_work_that_goes_on_counts_its_time_left_from_where_it_started():
    lines = work([10, 10], pause=10, total=100, done=50)
    assert lines[0] == "training: 60 %, 60/100 steps, 0:40 left"


def test_nothing_to_do_is_done():
    assert work([], pause=0, total=0) == ["training: 100 %, 0/0 steps, took 0:00"]


def test_work_that_fails_has_no_closing_line():
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError), plain_lines(stream, Clock())("training", 4):
        raise ZeroDivisionError
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_with_its_note():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with bars(stream)("training", 600.0, "s") as advance:
        advance(123.456, "loss 0.25")
        advance(476.544)
    last = stream.getvalue().rstrip().split("\r")[-1]
    assert last.startswith("training: 100%|")
    assert "600/600 s [" in last
    assert "loss 0.25" in last


def test_neither_lines_nor_bars_round_up_to_done():
    lines = work([1, 1, 0.7], pause=31, total=3)
    assert [line.split(",")[:2] for line in lines] == [
        ["training: 33 %", " 1/3 steps"],
        ["training: 66 %", " 2/3 steps"],
        ["training: 90 %", " 2/3 steps"],
        ["training: 90 %", " 2/3 steps"],
    ]
    screen = io.StringIO()
    with terminal_bars(screen)("training", 600.0, "s") as advance:
        advance(599.7)
    last = screen.getvalue().rstrip().split("\r")[-1]
    assert "training:  99%|" in last
    assert "599/600 s [" in last


def test_bars_of_a_notebook_do_not_round_up_either(capsys):
    with notebook_bars()("training", 600.0, "s") as advance:
        advance(599.7)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "training:  99%|" in last
    assert "599/600 s [" in last


def test_shares_that_sum_to_one_case_are_one_case():
    assert work([0.1] * 10, pause=0, total=1)[-1].startswith("training: 100 %, 1/1 step,")


def test_a_bar_for_no_work_does_not_fail():
    screen = io.StringIO()
    with terminal_bars(screen)("nothing", 0):
        pass
    assert "nothing" in screen.getvalue()
