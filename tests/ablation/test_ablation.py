"""Ablations of a tiny network: what the arms share, what they differ in, and what is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from networks import tiny

from mvl_auto.ablation.arms import ARMS, WITHOUT_BLOCK
from mvl_auto.ablation.options import AblationOptions
from mvl_auto.ablation.record import Amount, Length, Rates, RunRecord, read_records
from mvl_auto.ablation.run import finish_run
from mvl_auto.ablation.study import best_rates
from mvl_auto.api.ablation import ablate, estimate_ablation, prepare
from mvl_auto.errors import MvlError, PartlyFailed
from mvl_auto.network.trunk import trunk

ARMS_TRIED = (
    "vit",
    "vit+compute",
    "mappers",
    "mlp",
    "random",
    "permuted",
    "pretrained",
    "lora",
    "lora-random",
    "head",
    "middle",
    "train-only",
    "all-tokens",
    "pooled",
    "queries",
    "two-layers",
    "no-trunk",
    "aa",
    "rotated",
)


def options(output, **changes) -> AblationOptions:
    return AblationOptions(**({"arms": ("vit", "pretrained"), "length": Length(steps=2), "output": output} | changes))


@pytest.fixture(scope="module")
def records(root, tmp_path_factory) -> dict[str, RunRecord]:
    folder = tmp_path_factory.mktemp("study")
    return {each.arm: each for each in ablate(7, options(folder, arms=ARMS_TRIED), root=root)}


def test_every_arm_trains_and_is_scored(records):
    assert list(records) == list(ARMS_TRIED)
    for record in records.values():
        assert record.steps == 2
        assert len(record.scores) == 2  # one patient of five is kept apart
        assert 0 <= record.mean_dice <= 1
        assert (record.block is None) == (record.arm in WITHOUT_BLOCK)


def test_arms_of_one_run_begin_with_the_same_weights_and_batches(records):
    same = [record for record in records.values() if record.arm not in ("aa", "no-trunk")]
    assert len({record.initial_hash for record in same}) == 1
    assert len({record.batches_hash for record in [*same, records["no-trunk"]]}) == 1
    assert records["aa"].initial_hash != same[0].initial_hash
    assert records["aa"].batches_hash != same[0].batches_hash


def test_arms_have_the_trainable_weights_that_they_say(records):
    width, hidden = 48, 32
    count = {arm: record.trainable_parameters for arm, record in records.items()}
    llm_part = 2 * width + (width + 1) * hidden + (hidden + 1) * width + width  # norm, two mappers, gate
    assert count["pretrained"] == count["vit"] + llm_part
    same = ("mappers", "mlp", "random", "permuted", "head", "middle", "train-only", "two-layers", "aa", "rotated")
    assert {count[arm] for arm in (*same, "all-tokens", "pooled")} == {count["pretrained"]}
    assert count["queries"] == count["pretrained"] + 16 * width
    shapes = [(32, 32), (16, 32), (16, 32), (32, 32), (64, 32), (64, 32), (32, 64)]  # q k v o gate up down
    assert count["lora"] == count["pretrained"] + 8 * sum(outputs + inputs for outputs, inputs in shapes)
    assert count["lora-random"] == count["lora"]
    assert count["vit+compute"] > count["vit"]
    assert count["no-trunk"] == count["vit"] - trunk_weights(tiny(width=48, heads=3))
    assert records["vit"].frozen_parameters == records["mlp"].frozen_parameters == 0
    assert records["permuted"].frozen_parameters == records["pretrained"].frozen_parameters > 0
    layer = sum(outputs * inputs for outputs, inputs in shapes) + 2 * hidden
    assert records["pretrained"].frozen_parameters == layer + hidden
    assert records["two-layers"].frozen_parameters == 2 * layer + hidden
    assert (records["two-layers"].block.layers, records["pretrained"].block.layers) == (2, 1)
    assert records["two-layers"].block.sha256 != records["pretrained"].block.sha256


def trunk_weights(settings) -> int:
    return sum(weight.numel() for weight in trunk(settings).parameters())


def test_placements_and_forms_are_other_networks_than_the_planned_one(records):
    """Their scores after two steps may be the same; what they predict with is not."""
    assert records["train-only"].gate is None
    assert records["head"].gate != records["pretrained"].gate != records["middle"].gate
    assert records["pooled"].gate != records["pretrained"].gate != records["two-layers"].gate


def test_free_looks_are_taken_at_every_run(records):
    for arm, record in records.items():
        predicts = record.block is not None and arm != "train-only"
        of_block = {"without block", "mean of block"} if predicts else set()
        assert set(record.free_looks) == {"as it is", "without trunk"} | of_block, arm
        assert record.free_looks["as it is"] == pytest.approx(record.mean_dice, abs=1e-6)
        assert set(record.gradient_cosines) == {"as it is"} | (of_block - {"mean of block"})
        assert all(-1 <= cosine <= 1 for cosine in record.gradient_cosines.values())


def test_the_rotated_block_is_trained_to_the_same_network(records):
    """Up to rounding: some voxels on the border between two classes may change sides."""
    for case, labels in records["pretrained"].scores.items():
        for label, dice in labels.items():
            assert records["rotated"].scores[case][label] == pytest.approx(dice, abs=2e-3)


def test_finished_runs_are_not_trained_again_and_their_checkpoints_go(root, tmp_path):
    first = ablate(7, options(tmp_path), root=root)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "records").iterdir()}
    assert len(times) == 2
    assert list((tmp_path / "runs").iterdir()) == []
    again = ablate(7, options(tmp_path, seeds=2), root=root)
    assert [record for record in again if record.seed == 0] == first
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    assert len({record.initial_hash for record in again}) == 2


def test_an_interrupted_ablation_ends_as_an_uninterrupted_one(root, tmp_path, monkeypatch):
    from mvl_auto.training import loop

    whole = ablate(7, options(tmp_path / "whole"), root=root)
    taken = loop.training_step
    calls = []

    def stopped(*args, **named):
        calls.append(1)
        if len(calls) == 4:  # the second step of the second run
            raise KeyboardInterrupt
        return taken(*args, **named)

    monkeypatch.setattr(loop, "training_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        ablate(7, options(tmp_path / "cut"), root=root)
    assert len(read_records(tmp_path / "cut" / "records")) == 1
    cut = ablate(7, options(tmp_path / "cut"), root=root)
    for one, other in zip(whole, cut, strict=True):
        assert one.scores == other.scores
        assert one.batches_hash == other.batches_hash


def test_a_run_that_fails_does_not_stop_the_others(root, tmp_path):
    broken = tmp_path / "runs" / "vit-100-fold0-seed0"
    broken.parent.mkdir(parents=True)
    broken.write_text("a file where a folder should be")
    with pytest.raises(PartlyFailed, match=r"1 of 2 runs failed.*vit-100-fold0-seed0") as raised:
        ablate(7, options(tmp_path), root=root)
    assert [record.arm for record in raised.value.result] == ["pretrained"]
    broken.unlink()
    assert [record.arm for record in ablate(7, options(tmp_path), root=root)] == ["vit", "pretrained"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"length": Length(steps=3)}, "length of training"), ({"learning_rate": 1e-4}, "learning rates")],
)
def test_runs_of_other_conditions_are_not_mixed_in(root, tmp_path, changes, what):
    ablate(7, options(tmp_path, arms=("vit",)), root=root)
    before = (tmp_path / "study.json").read_bytes() if "length" in changes else None
    with pytest.raises(MvlError, match=f"other {what}"):
        ablate(7, options(tmp_path, arms=("vit",), **changes), root=root)
    assert before in (None, (tmp_path / "study.json").read_bytes())


def test_runs_of_another_plan_are_not_mixed_in(root, tmp_path):
    ablate(7, options(tmp_path, arms=("vit",)), root=root)
    record = tmp_path / "records" / "vit-100-fold0-seed0.json"
    content = json.loads(record.read_text())
    content["basis"]["plan_hash"] = "0" * 64
    record.write_text(json.dumps(content))
    with pytest.raises(MvlError, match="another plan"):
        ablate(7, options(tmp_path, arms=("vit",)), root=root)


def test_each_arm_gets_the_learning_rate_that_was_best_for_it(root, tmp_path):
    asked = options(tmp_path, learning_rates=(1e-5, 2e-3), mapper_rates=(1.0, 10.0), search_steps=2)
    study, _, _ = prepare(7, asked, root)
    searched = list(study.search_specs())
    assert [spec.arm for spec in searched].count("vit") == 2  # it has no mappers
    assert [spec.arm for spec in searched].count("pretrained") == 4
    scored = set(study.splits.folds[0])
    for spec in searched:
        assert not scored.intersection(spec.training_cases, spec.validation_cases)
        assert not set(spec.training_cases).intersection(spec.validation_cases)
    records = ablate(7, asked, root=root)
    tried = read_records(tmp_path / "search")
    assert len(tried) == 6
    assert {each.free_looks for each in tried} == {None}
    for record in records:
        best = max((each for each in tried if each.arm == record.arm), key=lambda each: each.mean_dice)
        assert next(e for e in tried if e.arm == record.arm and e.rates == record.rates).mean_dice == best.mean_dice
    chosen = json.loads((tmp_path / "rates.json").read_text())["chosen"]
    assert chosen["vit"]["learning_rate"] == records[0].rates.learning_rate


def test_the_best_rates_are_those_of_the_highest_dice():
    def record(arm, rate, dice):
        return RunRecord.model_construct(
            arm=arm, rates=Rates(learning_rate=rate), scores={"case": {"a": dice, "b": None}}
        )

    found = [record("vit", 1e-3, 0.5), record("vit", 2e-3, 0.7), record("mlp", 1e-3, 0.6), record("mlp", 2e-3, 0.6)]
    assert {arm: rates.learning_rate for arm, rates in best_rates(found).items()} == {"vit": 2e-3, "mlp": 1e-3}


def test_the_mappers_learn_faster_by_their_own_rate(root, tmp_path):
    """One step of Adam moves each weight by about the rate, so the gate's mean absolute change tells it."""
    moved = {}
    for factor in (1.0, 10.0):
        asked = options(tmp_path / str(factor), arms=("pretrained",), learning_rate=1e-3, mapper_rate=factor)
        study, places, rates = prepare(7, replace(asked, keep=True, length=Length(steps=1)), root)
        (spec,) = study.specs({"pretrained": rates})
        finish_run(spec, places)
        from mvl_auto.runs import load_trained

        trained = load_trained(places.study / "runs" / spec.name / "fold0", places.blocks)
        moved[factor] = float(trained.network.llm.gate.detach().abs().mean())
    assert moved[10.0] == pytest.approx(10 * moved[1.0], rel=0.05)


def test_an_estimate_counts_what_is_missing_and_writes_nothing(root, tmp_path):
    asked = options(tmp_path / "study", seeds=2, amounts=(Amount(share=1.0), Amount(cases=2)))
    found = estimate_ablation(7, asked, root=root)
    assert (found.runs, found.total) == (8, 8)
    assert found.seconds > 0
    assert found.disk_bytes > 0
    assert not (tmp_path / "study").exists()
    ablate(7, replace(asked, seeds=1), root=root)
    assert estimate_ablation(7, asked, root=root).runs == 4


def test_an_estimate_of_runs_of_given_seconds_is_little_more_than_these(root, tmp_path):
    asked = options(tmp_path / "study", seeds=2, length=Length(seconds=600))
    assert 4 * 600 <= estimate_ablation(7, asked, root=root).seconds <= 1.3 * 4 * 600
    assert 2 * 600 <= estimate_ablation(7, replace(asked, jobs=2), root=root).seconds <= 1.3 * 2 * 600


def test_an_estimate_counts_the_checkpoints_of_the_runs_that_are_there_at_once(root, tmp_path):
    asked = options(tmp_path / "study", seeds=2, length=Length(seconds=600))
    of_one = estimate_ablation(7, asked, root=root).disk_bytes
    for changes, runs in (({"jobs": 2}, 2), ({"jobs": 9}, 4), ({"keep": True}, 4)):
        assert estimate_ablation(7, replace(asked, **changes), root=root).disk_bytes == runs * of_one, changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("vit", "magic")}, "there is no arm 'magic'"),
        ({"folds": ("all",)}, "needs validation cases"),
        ({"folds": ("9",)}, "no fold"),
        ({"configuration": "2d"}, "2d"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(root, tmp_path, changes, message):
    with pytest.raises(MvlError, match=message):
        ablate(7, options(tmp_path / "study", **changes), root=root)
    assert not (tmp_path / "study").exists()


def test_every_arm_is_described():
    assert all(arm.what for arm in ARMS.values())
    assert torch.tensor([ARMS["aa"].seed_shift]).item() > 0


def test_python_users_ablate_with_options_of_the_public_surface(root, tmp_path):
    import mvl_auto

    asked = mvl_auto.AblationOptions(arms=("no-trunk",), length=Length(steps=1), output=tmp_path)
    (record,) = mvl_auto.ablate(7, asked, root=root, progress=False)
    assert (record.arm, record.steps) == ("no-trunk", 1)
    with pytest.raises(MvlError, match="there is no arm 'magic'"):
        mvl_auto.ablate(7, mvl_auto.AblationOptions(arms=("magic",)), root=root, progress=False)
