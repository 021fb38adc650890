"""A plan for a time is trained for that time, unless the words say otherwise."""

from __future__ import annotations

import shutil

from mvl_auto.plans import write_document
from mvl_auto.runs.checkpoint import read_state
from mvl_auto.training import TrainingOptions, train
from mvl_auto.training.schedule import TrainingLimit, planned


def test_a_run_without_a_given_length_takes_the_plans_time_or_else_its_steps():
    assert planned(2500, None) == TrainingLimit(steps=2500)
    assert planned(2500, 600.0) == TrainingLimit(seconds=600.0)


def test_a_plan_for_seconds_is_trained_for_seconds_and_one_given_steps_for_steps(prepared, tmp_path):
    folder = tmp_path / "preprocessed"
    shutil.copytree(prepared.folder, folder)
    write_document(folder / "plans.json", prepared.plan.model_copy(update={"time_budget": 2.0}))

    def state(**words):
        name = "-".join(words) or "as-planned"
        places = {"results_folder": tmp_path / "results", "blocks_folder": prepared.blocks}
        return read_state(train(folder, "0", TrainingOptions(run=name, workers=0, **words), **places).folder)

    timed = state()
    assert (timed.budget_steps, timed.budget_seconds) == (None, 2.0)
    assert timed.elapsed >= 2.0
    given = state(steps=3)
    assert (given.budget_steps, given.budget_seconds, given.step) == (3, None, 3)
