"""progress.png is drawn from progress.csv: what is there, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mvl_auto.training.plot import draw_progress

LINES = "step,seconds,loss,learning_rate,share_waited,dice\n10,1,2.0,1e-3,0.1,\n20,2,1.5,1e-3,0.1,0.25\n"


def test_a_damaged_line_does_not_stop_the_picture(tmp_path):
    (tmp_path / "progress.csv").write_text(LINES + "torn,\n30,3,1.")
    assert draw_progress(tmp_path) == tmp_path / "progress.png"


def test_a_plot_has_both_curves_in_their_colours(tmp_path):
    (tmp_path / "progress.csv").write_text(LINES + "30,3,1.0,1e-3,0.1,0.5\n")
    picture = np.asarray(Image.open(draw_progress(tmp_path)).convert("RGB")).astype(int)
    blue, orange = np.array([0x1F, 0x77, 0xB4]), np.array([0xFF, 0x7F, 0x0E])
    for colour in (blue, orange):
        assert (np.abs(picture - colour).max(axis=2) < 30).sum() > 100
    (tmp_path / "progress.csv").write_text(LINES.replace("0.25", ""))
    picture = np.asarray(Image.open(draw_progress(tmp_path)).convert("RGB")).astype(int)
    assert (np.abs(picture - orange).max(axis=2) < 30).sum() == 0


def test_without_lines_there_is_no_plot(tmp_path):
    assert draw_progress(tmp_path) is None
    (tmp_path / "progress.csv").write_text(LINES.splitlines()[0] + "\n")
    assert draw_progress(tmp_path) is None
    assert not (tmp_path / "progress.png").exists()


def test_a_damaged_file_is_a_warning_not_the_end_of_a_training(tmp_path, caplog):
    (tmp_path / "progress.csv").write_text("nonsense\n")
    assert draw_progress(tmp_path) is None
    assert "no column 'step'" in caplog.text
