"""Steps that go wrong: no finite loss, no memory; and the learning rate on the way."""

from __future__ import annotations

import csv
import itertools
import re
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from networks import Hungry, tiny

from mvl_auto.errors import MvlError
from mvl_auto.network import build_network
from mvl_auto.network.loss import targets_of
from mvl_auto.network.step import Learner, StepContext, training_step
from mvl_auto.network.team import Team
from mvl_auto.plans import LabelScheme
from mvl_auto.plans.plan import PEAK_LEARNING_RATE
from mvl_auto.progress import silent
from mvl_auto.ranks import Rank
from mvl_auto.runs.checkpoint import State
from mvl_auto.text import duration_text
from mvl_auto.training import loop
from mvl_auto.training.loop import MOST_LEFT_OUT, REPORT_EVERY, optimise, take_step
from mvl_auto.training.patches import Batch
from mvl_auto.training.schedule import TrainingLimit, learning_rate_factor
from mvl_auto.training.session import Session

CPU = torch.device("cpu")
LABELS = LabelScheme(class_values=(0, 1, 2), class_names=("background", "a", "b"))
FLOAT32 = StepContext(targets_of(LABELS, CPU), CPU, torch.autocast("cpu", enabled=False))
NAMES = ("one", "two")


def session(tmp_path, network=None):
    network = network or build_network(tiny(), 1, 3).train()
    state = State(
        dataset="Dataset007_Tiny",
        configuration="3d_fullres",
        fold="0",
        plan_hash="",
        block=None,
        seed=0,
        training_cases=NAMES,
        validation_cases=(),
        budget_steps=10,
        budget_seconds=None,
        learning_rate=PEAK_LEARNING_RATE,
        step=0,
        elapsed=0.0,
        finished=False,
    )
    return Session(Learner.of(network), FLOAT32, tmp_path, state)


def batch(seed=0, size=2, poisoned=False):
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(size, 1, 16, 16, 16, generator=random)
    if poisoned:
        image[0, 0, 3, 3, 3] = torch.nan
    label = torch.randint(0, 3, (size, 16, 16, 16), generator=random, dtype=torch.int16)
    return Batch(image, label, torch.tensor([0, 1] * (size // 2), dtype=torch.int32))


def train(session, batches, steps):
    optimise(session, iter(batches), TrainingLimit(steps=steps), NAMES, silent, started=0.0)


def weights(session):
    return [p.detach().clone() for p in session.learner.network.parameters()]


def test_a_step_without_a_finite_loss_is_left_out_and_the_run_goes_on(tmp_path, caplog):
    made, reference = session(tmp_path / "a"), session(tmp_path / "b")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train(made, [batch(0), batch(1, poisoned=True), batch(2)], 3)
    assert "step 2 is left out: its loss is not finite (cases one, two)" in caplog.text
    for step, each in [(0, batch(0)), (2, batch(2))]:  # without the second, but at the rates and decays of the three
        reference.learner.step = step
        rate = PEAK_LEARNING_RATE * learning_rate_factor(step / 3)
        training_step(reference.learner, each.image, each.label, reference.context, rate)
    assert all(torch.equal(a, b) for a, b in zip(weights(made), weights(reference), strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(made.learner.average.values, reference.learner.average.values, strict=True)
    )
    with open(tmp_path / "a" / "progress.csv") as stream:
        (line,) = csv.DictReader(stream)
    assert float(line["loss"]) > 0


def test_a_gradient_that_is_not_finite_changes_nothing_either(tmp_path):
    made = session(tmp_path)
    before = weights(made)
    for p in made.learner.network.parameters():
        p.register_hook(lambda grad: grad * torch.inf)
    loss = training_step(made.learner, batch().image, batch().label, made.context, 1e-3)
    assert loss.isnan()
    assert all(torch.equal(a, b) for a, b in zip(before, weights(made), strict=True))


def test_a_process_that_does_not_report_keeps_no_losses_either(tmp_path, monkeypatch):
    """Of several processes only the one that leads writes progress.csv."""
    made, held = session(tmp_path), []
    made.context = replace(FLOAT32, targets=replace(FLOAT32.targets, team=Team(Rank(number=1, ranks=1))))
    noted = loop.note_step

    def note(session, recent, *others):
        noted(session, recent, *others)
        held.append(len(recent.losses))

    monkeypatch.setattr(loop, "note_step", note)
    train(made, (batch(n) for n in itertools.count()), 2 * REPORT_EVERY)
    assert max(held) == REPORT_EVERY
    assert not (tmp_path / "progress.csv").exists()


def test_several_in_a_row_end_the_run_with_their_cases_named(tmp_path):
    made = session(tmp_path)
    with pytest.raises(MvlError, match=rf"{MOST_LEFT_OUT} steps in a row.*step 3: one, two.*--lr"):
        train(made, itertools.chain([batch(), batch()], (batch(n, poisoned=True) for n in itertools.count())), 100)
    assert made.step == 2 + MOST_LEFT_OUT


def test_without_memory_at_first_the_batch_is_cut_in_parts_with_the_same_gradients(tmp_path, caplog):
    made, whole = session(tmp_path, Hungry(samples=1)), session(tmp_path, Hungry())
    many = batch(size=4)
    losses = [take_step(each, many, 1e-3) for each in (made, whole)]
    assert made.learner.network.seen == [4, 2, 1, 1, 1, 1]
    assert "computed in 2 parts" in caplog.text
    assert "computed in 4 parts" in caplog.text
    torch.testing.assert_close(*losses)
    for a, b in zip(made.learner.network.parameters(), whole.learner.network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
    take_step(made, many, 1e-3)
    assert made.learner.network.seen[6:] == [1, 1, 1, 1], "it stays so"


def test_without_memory_for_one_sample_or_later_it_is_one_line(tmp_path):
    with pytest.raises(MvlError, match="memory of cpu is too small"):
        take_step(session(tmp_path, Hungry(samples=0)), batch(), 1e-3)
    later = session(tmp_path, Hungry(calls=11))
    with pytest.raises(MvlError, match="memory of cpu is too small"):
        train(later, (batch() for _ in range(20)), 20)
    assert later.step == 11


def test_progress_tells_the_rate_of_its_step(tmp_path):
    made = session(tmp_path)
    train(made, (batch() for _ in range(20)), 20)
    with open(tmp_path / "progress.csv") as stream:
        lines = list(csv.DictReader(stream))
    assert [int(line["step"]) for line in lines] == [REPORT_EVERY, 2 * REPORT_EVERY]
    for line in lines:
        expected = PEAK_LEARNING_RATE * learning_rate_factor((int(line["step"]) - 1) / 20)
        assert float(line["learning_rate"]) == pytest.approx(expected, rel=1e-3)
        assert 0 <= float(line["share_waited"]) <= 1
    assert all(group["lr"] == pytest.approx(expected) for group in made.learner.optimizer.param_groups)


class Bar:
    """A progress that keeps what it was told."""

    def __init__(self):
        self.told, self.moved, self.notes = [], 0, []

    def __call__(self, what, total, unit="", done=0):
        self.told.append((what, total, unit, done))
        return nullcontext(self.advance)

    def advance(self, by, note=""):
        self.moved += by
        self.notes += [note] if note else []


def test_the_bar_counts_steps_and_says_loss_dice_and_rate(tmp_path, caplog):
    caplog.set_level("INFO")
    made, bar = session(tmp_path), Bar()
    watch = SimpleNamespace(dice=0.25, look=lambda *_: 0.25)
    optimise(made, (batch() for _ in range(20)), TrainingLimit(steps=20), NAMES, bar, time.monotonic(), watch)
    assert bar.told == [("training", 20, "step", 0)]
    assert bar.moved == 20
    assert len(bar.notes) == 2
    assert all(re.fullmatch(r"loss \d\.\d{3}, Dice 0\.250, rate .*e-\d+, .* steps/s", note) for note in bar.notes)
    (said,) = (record for record in caplog.records if "on this device" in record.getMessage())
    left, per_step, duration, *_ = said.args
    assert left == 12
    assert duration == duration_text(12 * per_step)


def test_the_bar_of_a_budget_of_time_counts_seconds(tmp_path):
    made, bar = session(tmp_path), Bar()
    begun = time.monotonic()
    optimise(made, (batch() for _ in range(1000)), TrainingLimit(seconds=1.0), NAMES, bar, begun)
    ((what, total, unit, done),) = bar.told
    assert (what, total, unit) == ("training", 1.0, "s")
    assert bar.moved == pytest.approx(made.elapsed - done)


def test_what_a_scaler_of_float16_knew_is_left_where_there_is_none_now(tmp_path):
    """A run of a GPU of float16 goes on on a CPU."""
    made = session(tmp_path)
    train(made, [batch(0), batch(1)], 2)
    made.save()
    again = session(tmp_path)
    again.resume(tmp_path / "checkpoint.safetensors", made.state.model_copy(update={"scaler": {"scale": 1024.0}}))
    assert again.step == 2
    assert all(torch.equal(a, b) for a, b in zip(weights(made), weights(again), strict=True))
    assert again.learner.optimizer.state.keys()
