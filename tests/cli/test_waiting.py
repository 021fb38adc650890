"""Threads spin on a quiet machine and sleep on a shared one; what the user says stands."""

from __future__ import annotations

import threading
import time

import pytest

from mvl_auto.cli import waiting
from mvl_auto.cli.waiting import busy_share, choose_waiting


def line(busy: int, idle: int) -> str:
    return f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose cores are busy for a share of the time."""

    def make(share: float) -> None:
        stat = tmp_path / "stat"
        stat.write_text(line(1000, 5000))
        monkeypatch.setattr(waiting, "busy_share", lambda: seen(stat, share))

    def seen(stat, share):
        def go_on():
            time.sleep(0.05)
            stat.write_text(line(1000 + round(100 * share), 5000 + round(100 * (1 - share))))

        threading.Thread(target=go_on).start()
        return busy_share(stat, 0.3)

    return make


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, {"GOMP_SPINCOUNT": "100000"}), (0.1, {"GOMP_SPINCOUNT": "100000"}), (0.4, {"OMP_WAIT_POLICY": "PASSIVE"})],
)
def test_threads_spin_where_nobody_else_wants_the_cores(machine, share, expected):
    machine(share)
    environment: dict[str, str] = {}
    choose_waiting(environment, may_spin=True)
    assert environment == expected


def test_a_command_that_computes_for_a_moment_never_spins(machine):
    machine(0.0)
    environment: dict[str, str] = {}
    choose_waiting(environment, may_spin=False)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize("chosen", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_what_the_user_says_stands(machine, chosen):
    machine(0.0)
    environment = dict(chosen)
    choose_waiting(environment, may_spin=True)
    assert environment == chosen


@pytest.mark.parametrize("content", [None, "", "cpu 1 2\n", "intr 1 2 3 4 5 6 7 8\n"])
def test_a_system_that_does_not_tell_counts_as_busy(tmp_path, content):
    stat = tmp_path / "stat"
    if content is not None:
        stat.write_text(content)
    assert busy_share(stat, 0.0) == 1.0
