"""Trainings that end on the way, as Ctrl-C ends them."""

from __future__ import annotations

import pytest

from mvl_auto.training import loop, patches


def stop_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The next training raises KeyboardInterrupt as it asks for the batch of `step`, once; all steps are saved."""
    make, left = patches.Patches.batch, [step]

    def batch(own, now):
        if now in left:
            left.clear()
            raise KeyboardInterrupt
        return make(own, now)

    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(patches.Patches, "batch", batch)
