"""A run's own log file: what it holds, and that it leaves no trace in the logging set-up."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import sys
from contextlib import nullcontext

import pytest

from mvl_auto.errors import MvlError
from mvl_auto.logs import LOGGER, log_file

log = logging.getLogger("mvl_auto.training.loop")


def test_the_log_file_holds_everything_from_info_on_with_the_time(tmp_path):
    with log_file(tmp_path / "run" / "log.txt"):
        log.debug("too fine")
        log.info("step 1")
        logging.getLogger("matplotlib").warning("not ours")
    log.info("too late")
    lines = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines[1:]] == ["INFO step 1"]
    assert "mvl_auto" in lines[0]
    assert lines[1][:4].isdigit()


def test_the_command_is_written_as_it_can_be_typed_again(tmp_path, monkeypatch):
    words = ["mvl_train", "a folder/Dataset007", "it's", "x;y", "$HOME"]
    monkeypatch.setattr(sys, "argv", words)
    with log_file(tmp_path / "log.txt"):
        pass
    first = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()[0]
    assert shlex.split(first[first.index("mvl_train") :]) == words


def test_a_second_start_goes_on_in_the_same_file(tmp_path):
    for step in ("first", "second"):
        with log_file(tmp_path / "log.txt"):
            log.info(step)
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert text.index("first") < text.index("second")


def test_the_end_by_an_error_is_in_the_file_and_the_set_up_is_as_before(tmp_path):
    before = (LOGGER.level, list(LOGGER.handlers))
    with pytest.raises(KeyboardInterrupt), log_file(tmp_path / "log.txt"):
        raise KeyboardInterrupt
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").endswith("ERROR stopped by KeyboardInterrupt\n")
    assert (LOGGER.level, LOGGER.handlers) == before


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MvlError, match=r"file/log.txt: cannot be written"), log_file(tmp_path / "file" / "log.txt"):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
@pytest.mark.parametrize("stopped", [False, True])
def test_a_full_disk_neither_stops_the_run_nor_speaks_on_the_screen(tmp_path, capfd, caplog, stopped):
    """A run that ends well says at its end that lines are missing; one that fails has its own one line to say."""
    with pytest.raises(MvlError, match=r"^why it failed") if stopped else nullcontext(), log_file(tmp_path / "log.txt"):
        (stream,) = [handler.stream for handler in LOGGER.handlers if isinstance(handler, logging.FileHandler)]
        with open("/dev/full", "w") as full:
            os.dup2(full.fileno(), stream.fileno())
        for step in range(1000):
            log.info("step %d %s", step, "x" * 100)
        if stopped:
            raise MvlError("why it failed")
    assert capfd.readouterr().err == ""
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    told = f"{tmp_path}/log.txt lacks lines, it could not be written ({os.strerror(errno.ENOSPC)})"
    assert warnings == ([] if stopped else [told])


def test_a_log_that_is_a_link_is_refused_and_the_file_behind_it_stays(tmp_path):
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / "log.txt").symlink_to(tmp_path / "precious.txt")
    with pytest.raises(MvlError, match=r"log\.txt: is a link"), log_file(tmp_path / "log.txt"):
        pass
    assert (tmp_path / "precious.txt").read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_log_that_is_a_pipe_is_refused_without_waiting_for_a_reader(tmp_path):
    os.mkfifo(tmp_path / "log.txt")
    with pytest.raises(MvlError, match=r"log\.txt: cannot be written"), log_file(tmp_path / "log.txt"):
        pass


def test_what_a_terminal_would_act_on_is_written_out(tmp_path):
    with log_file(tmp_path / "log.txt"):
        log.info("the label %s", "\x1b]0;owned\x07\u202eliver")
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert r"the label \x1b]0;owned\x07\u202eliver" in text
    assert text.isascii()
