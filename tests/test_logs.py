"""A run's own log file: what it holds, and that it leaves no trace in the logging set-up."""

from __future__ import annotations

import logging

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
