"""Pretraining: hidden parts are found again, no label is read, it resumes bit for bit, and training takes it."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest
import torch
from builders import make_dataset
from networks import tiny
from safetensors.torch import load_file

from mvl_auto.cli.pretrain import main
from mvl_auto.errors import MvlError
from mvl_auto.network import build_network
from mvl_auto.network.optimizer import trainable
from mvl_auto.network.reconstruction import reconstruction_loss
from mvl_auto.plans import write_document
from mvl_auto.runs import read_run
from mvl_auto.runs.checkpoint import AVERAGED, read_state, read_tensors
from mvl_auto.training import TrainingOptions, loop, patches, pretrain, train
from mvl_auto.training.cases import Cases
from mvl_auto.training.finetune import start_from
from mvl_auto.training.masking import HIDDEN_SHARE, MaskedPatches, draw_hidden


def pretrained(prepared, name, images=None, without_fold=None, steps=2, **words):
    return pretrain(
        prepared.folder,
        images,
        without_fold,
        TrainingOptions(run=name, steps=steps, workers=0, **words),
        results_folder=prepared.root / "results" / "Dataset007_Tiny",
        blocks_folder=prepared.blocks,
    )


class Constant(torch.nn.Module):
    """Gives back 1 everywhere, and remembers what it was shown."""

    def forward(self, image):
        self.shown = image
        return [torch.ones_like(image)]


def test_the_loss_counts_hidden_voxels_alone_and_the_network_is_not_shown_them():
    image = torch.tensor([[[5.0, 3.0], [1.0, 9.0]]])[:, None]  # b c y x
    hidden = torch.tensor([[[1, 1], [0, 0]]], dtype=torch.int16)
    network = Constant()
    assert reconstruction_loss(network, image, hidden) == pytest.approx((4.0**2 + 2.0**2) / 2)
    assert network.shown.flatten().tolist() == [0.0, 0.0, 1.0, 9.0]
    two = torch.cat([image, image + 1], dim=1)
    assert reconstruction_loss(network, two, hidden) == pytest.approx((16 + 4 + 25 + 9) / 4)
    assert reconstruction_loss(network, image, torch.zeros_like(hidden)) == 0


def test_whole_cells_are_hidden_three_quarters_of_them():
    hidden = draw_hidden(np.random.default_rng(0), (16, 24, 24), (8, 8, 8))
    cells = hidden.reshape(2, 8, 3, 8, 3, 8).swapaxes(1, 2).swapaxes(3, 4).swapaxes(2, 3).reshape(18, -1)
    assert set(cells.sum(axis=1)) == {0, 8**3}
    assert hidden.mean() * 18 == round(HIDDEN_SHARE * 18)
    assert draw_hidden(np.random.default_rng(0), (5,), (4,)).sum() in (1, 4)  # one of two cells, the second cut off
    assert draw_hidden(np.random.default_rng(0), (4,), (4,)).all()


def masked(prepared, folder=None, seed=0):
    plan = prepared.plan
    full = plan.configuration("3d_fullres")
    cases = Cases(folder or prepared.folder / "3d_fullres", labelled=False)
    names = sorted(path.stem for path in (prepared.folder / "3d_fullres").glob("*.b2nd"))
    return MaskedPatches(cases, names, full, plan.labels, seed)


def test_no_label_is_read(prepared, tmp_path):
    """The label files are not even there."""
    for file in (prepared.folder / "3d_fullres").iterdir():
        if file.suffix in (".b2nd", ".json"):
            shutil.copy(file, tmp_path)
    with_labels, without = masked(prepared).batch(3), masked(prepared, tmp_path).batch(3)
    assert torch.equal(with_labels.image, without.image)
    assert torch.equal(with_labels.label, without.label)


def test_what_lies_beyond_an_image_is_not_hidden(prepared):
    """Its zeros are no image: to find them again teaches nothing."""
    batch = masked(prepared).batch(0)
    assert set(batch.label.unique().tolist()) == {0, 1}
    beyond = (batch.image == 0).all(dim=1)
    assert beyond.any()  # the patch is larger than the cases
    assert not batch.label[beyond].any()


def test_it_ends_and_goes_on_bit_for_bit(prepared, monkeypatch):
    whole = pretrained(prepared, "whole_pre", steps=4)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(loop, "REPORT_EVERY", 1)
    make = patches.Patches.batch

    def interrupted(own, step):
        if step == 3:
            raise KeyboardInterrupt
        return make(own, step)

    with monkeypatch.context() as patch:
        patch.setattr(patches.Patches, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrained(prepared, "parts_pre", steps=4)
    parts = whole.folder.parents[1] / "parts_pre" / "pretraining"
    assert read_state(parts).step == 3
    assert pretrained(prepared, "parts_pre", steps=4).folder == parts
    one, other = (load_file(folder / "checkpoint.safetensors") for folder in (whole.folder, parts))
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
    state = read_state(parts)
    assert state.finished
    assert state.objective == "reconstruction"
    assert {"progress.csv", "log.txt", "resume.safetensors", "state.json"} <= {path.name for path in parts.iterdir()}


def test_training_takes_all_but_the_heads(prepared):
    result = pretrained(prepared, "taken")
    assert read_run(result.folder.parent).folds == ()  # nothing that could predict
    settings = prepared.plan.configuration("3d_fullres").network
    stored = read_tensors(result.folder / "checkpoint.safetensors", (AVERAGED,))[AVERAGED]
    for source in (result.folder, result.folder.parent, result.folder / "checkpoint.safetensors"):
        network = build_network(settings.model_copy(update={"llm": tiny().llm}), 1, 1, seed=3)  # as many outputs
        taken = start_from(network, source)
        assert "decoder.head.body.weight" in taken.fresh
        assert all("head" in name for name in taken.fresh)
        assert torch.equal(trainable(network)["trunk.0.mlp.0.weight"], stored["trunk.0.mlp.0.weight"])
    finetuned = train(
        prepared.folder,
        "0",
        TrainingOptions(run="after", steps=2, workers=0, start_from=result.folder, trunk_rate=0),
        results_folder=prepared.root / "results" / "Dataset007_Tiny",
        blocks_folder=prepared.blocks,
    )
    now = read_tensors(finetuned.folder / "checkpoint.safetensors", (AVERAGED,))[AVERAGED]
    trunk = [name for name in now if name.startswith("trunk.")]
    assert trunk
    for name in trunk:
        assert torch.equal(now[name], stored[name]), name
    assert not torch.equal(now["tokens.embed.body.weight"], stored["tokens.embed.body.weight"])
    with pytest.raises(MvlError, match=r"trunk_rate 0\.0"):
        train(
            prepared.folder,
            "0",
            TrainingOptions(run="after", steps=2, workers=0, trunk_rate=0.1),
            results_folder=prepared.root / "results" / "Dataset007_Tiny",
            blocks_folder=prepared.blocks,
        )


def test_a_signal_saves_first_and_the_command_says_how_to_go_on(prepared, monkeypatch, capsys):
    take = loop.take_step

    def take_step_while_a_signal_arrives(session, batch, rate):
        if session.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(session, batch, rate)

    words = ["-d", "7", "-n", "stopped_pre", "--steps", "3", "--workers", "0", "--device", "cpu"]
    words += ["--root", str(prepared.root)]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", take_step_while_a_signal_arrives)
        assert main(words) == 128 + signal.SIGTERM
    last = capsys.readouterr().err.splitlines()[-1]
    assert "step 2 is saved" in last
    assert "To resume: mvl_pretrain -d 7 -n stopped_pre" in last
    assert main(words) == 0
    folder = prepared.root / "results" / "Dataset007_Tiny" / "stopped_pre" / "pretraining"
    assert read_state(folder).step == 3
    assert f"next: mvl_train 7 fold0 --from {folder}" in capsys.readouterr().out


def test_what_is_not_given_again_is_as_before(prepared):
    folder = pretrained(prepared, "slow_pre", steps=1, learning_rate=5e-4).folder
    pretrained(prepared, "slow_pre", steps=2)
    assert read_state(folder).learning_rate == 5e-4
    with pytest.raises(MvlError, match=r"learning_rate 0\.0005"):
        pretrained(prepared, "slow_pre", steps=3, learning_rate=1e-3)


def test_a_second_stage_is_refused_as_it_needs_labels(prepared, tmp_path):
    full = prepared.plan.configuration("3d_fullres")
    second = full.model_copy(update={"name": "3d_cascade_fullres", "previous_stage": "3d_lowres"})
    plan = prepared.plan.model_copy(update={"configurations": {second.name: second}, "recommended": second.name})
    write_document(tmp_path / "plans.json", plan)
    with pytest.raises(MvlError, match="Pretrain 3d_lowres"):
        pretrain(tmp_path, results_folder=tmp_path / "results", blocks_folder=prepared.blocks)


@pytest.fixture(scope="module")
def scans(tmp_path_factory, prepared):
    """A folder with a copy of every training image and one of its own, and a file that is no image."""
    folder = tmp_path_factory.mktemp("scans")
    (raw,) = (prepared.root / "raw").rglob("imagesTr")
    for file in raw.iterdir():
        shutil.copy(file, folder)
    more = make_dataset(folder / "more", cases=1, shape=(12, 14, 13), seed=9)
    (image,) = (more / "imagesTr").iterdir()
    shutil.move(image, folder / "another.nii.gz")
    shutil.rmtree(folder / "more")
    (folder / "broken.nii.gz").write_bytes(b"no image")
    return folder


def test_images_without_labels_are_seen_and_a_bad_one_is_named(prepared, scans, caplog):
    result = pretrained(prepared, "with_scans", images=scans)
    assert result.images == 6 + 6 + 1
    assert "broken.nii.gz" in caplog.text
    again = read_state(result.folder)
    shutil.copy(scans / "another.nii.gz", scans / "third.nii.gz")
    with pytest.raises(MvlError, match="images_hash"):
        pretrained(prepared, "with_scans", images=scans, steps=3)
    (scans / "third.nii.gz").unlink()
    assert pretrained(prepared, "with_scans", images=scans, steps=3).steps == 3
    assert read_state(result.folder).images_hash == again.images_hash != ""


def test_what_a_fold_validates_on_is_left_out_also_where_the_folder_has_it_again(prepared, scans, caplog):
    result = pretrained(prepared, "apart", images=scans, without_fold="0")
    state = read_state(result.folder)
    assert result.folder.name == "pretraining_without_fold0"
    assert state.validation_cases
    assert not set(state.training_cases) & set(state.validation_cases)
    assert result.images == 2 * len(state.training_cases) + 1
    for name in state.validation_cases:
        assert name in caplog.text


def test_a_folder_without_any_image_is_refused_and_leaves_nothing(prepared, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.nii.gz").write_bytes(b"")
    before = sorted(prepared.root.rglob("*"))
    for folder in ("empty", "bad"):
        with pytest.raises(MvlError):
            pretrained(prepared, "refused", images=tmp_path / folder)
    assert sorted(prepared.root.rglob("*")) == before
