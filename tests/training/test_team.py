"""Training by two processes: the gradients of one with the whole batch, one writer, and they end together."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from networks import RANDOM_BLOCK, Hungry, tiny, tiny_llm
from teams import in_ranks

from mvl_auto.errors import MvlError, Stopped
from mvl_auto.llm import load_block
from mvl_auto.network import build_network
from mvl_auto.network.loss import deep_loss
from mvl_auto.network.model import MedVisionLlama
from mvl_auto.network.optimizer import trainable
from mvl_auto.network.step import Learner, add_gradients, step_context
from mvl_auto.network.team import together
from mvl_auto.plans import IGNORE, LabelScheme
from mvl_auto.runs.checkpoint import read_state
from mvl_auto.training import TrainingOptions, patches, train
from mvl_auto.training.loop import fit_together
from mvl_auto.training.patches import Batch

CPU = torch.device("cpu")
NAMES = ("background", "a", "b")
PLAIN = LabelScheme(class_values=(0, 1, 2), class_names=NAMES)
MASKED = LabelScheme(class_values=(0, 1, 2), class_names=NAMES, ignore_value=3)
REGIONS = LabelScheme(
    class_values=(0, 1, 2),
    class_names=NAMES,
    regions=((1, 2), (2,)),
    region_names=("all", "b"),
    regions_class_order=(1, 2),
)
MASKED_REGIONS = REGIONS.model_copy(update={"ignore_value": 3})
KINDS = [(scheme, batch_dice) for scheme in (PLAIN, MASKED, REGIONS, MASKED_REGIONS) for batch_dice in (False, True)]


def batch(labels: LabelScheme):
    """Three samples that differ in what they show and in how much of them is annotated."""
    random = torch.Generator().manual_seed(0)
    image = torch.randn(3, 1, 16, 16, 16, generator=random)
    label = torch.randint(0, 3, (3, 16, 16, 16), generator=random, dtype=torch.int16)
    label[0][label[0] == 2] = 0
    if labels.ignore_value is not None:
        label[2, 4:] = IGNORE
    return image, label


def gradients(network):
    return {name: p.grad.clone() for name, p in trainable(network).items()}


def gradients_of_shares(rank):
    found = []
    with together("cpu") as (team, device):
        for labels, batch_dice in KINDS:
            context = step_context(labels, device, batch_dice, team)
            context = replace(context, precision=torch.autocast("cpu", enabled=False))
            learner = Learner.of(build_network(tiny(), 1, labels.num_outputs, seed=rank).train(), team)
            image, label = batch(labels)
            loss = add_gradients(learner.parallel, image[rank::2], label[rank::2], context)
            found.append((loss, gradients(learner.network)))
    return found


def test_the_gradients_of_two_processes_are_those_of_one_with_the_whole_batch(tmp_path):
    """Two samples and one: for each loss, and from the weights of the first process."""
    both = in_ranks(gradients_of_shares, tmp_path)
    for place, (labels, batch_dice) in enumerate(KINDS):
        network = build_network(tiny(), 1, labels.num_outputs, seed=0).train()
        image, label = batch(labels)
        loss = deep_loss(network(image), label, step_context(labels, CPU, batch_dice).targets)
        loss.backward()
        expected = gradients(network)
        largest = max(float(g.abs().max()) for g in expected.values())
        for ours, found in (each[place] for each in both):
            torch.testing.assert_close(ours, loss.detach(), rtol=1e-5, atol=0)
            for name, gradient in expected.items():
                torch.testing.assert_close(
                    found[name], gradient, rtol=1e-5, atol=1e-5 * largest, msg=lambda m, n=name: f"{n}: {m}"
                )
        assert all(torch.equal(both[0][place][1][name], both[1][place][1][name]) for name in expected)


def test_shares_in_parts_have_the_same_gradients(tmp_path):
    """Four samples and three, in two parts each: two and two, two and one."""
    random = torch.Generator().manual_seed(1)
    image = torch.randn(7, 1, 16, 16, 16, generator=random)
    label = torch.randint(0, 3, (7, 16, 16, 16), generator=random, dtype=torch.int16)

    def found(rank):
        with together("cpu") as (team, device):
            context = replace(step_context(PLAIN, device, team=team), parts=2)
            context = replace(context, precision=torch.autocast("cpu", enabled=False))
            learner = Learner.of(build_network(tiny(), 1, 3, seed=0).train(), team)
            loss = add_gradients(learner.parallel, image[rank::2], label[rank::2], context)
            return loss, gradients(learner.network)

    network = build_network(tiny(), 1, 3, seed=0).train()
    whole = deep_loss(network(image), label, step_context(PLAIN, CPU).targets)
    whole.backward()
    for loss, ours in in_ranks(found, tmp_path):
        torch.testing.assert_close(loss, whole.detach(), rtol=1e-5, atol=0)
        for name, gradient in gradients(network).items():
            torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("most", "parts"), [(2, 1), (1, 2), (0, None)])
def test_all_cut_their_shares_as_the_one_with_the_least_memory_needs_it(tmp_path, most, parts):
    """The second process has memory for so many samples; the first for any."""
    shares = [batch(PLAIN)[0][:2], batch(PLAIN)[1][:2]]

    def cut(rank):
        with together("cpu") as (team, device):
            network = Hungry(samples=most if rank else 99)
            context = replace(step_context(PLAIN, device, team=team), precision=torch.autocast("cpu", enabled=False))
            before = [p.detach().clone() for p in network.parameters()]
            session = SimpleNamespace(learner=Learner.of(network), context=context, team=team)
            fit_together(session, Batch(*shares, torch.zeros(2, dtype=torch.int32)))
            assert all(torch.equal(p, q) and p.grad is None for p, q in zip(before, network.parameters(), strict=True))
            return session.context.parts

    found = in_ranks(cut, tmp_path)
    if parts is None:
        assert all(isinstance(each, MvlError) and "--batch-size" in str(each) for each in found)
    else:
        assert found == [parts, parts]


def test_the_frozen_block_is_not_sent_and_all_else_is(prepared, tmp_path):
    settings = tiny(llm=tiny_llm(), width=48, heads=3)
    block = load_block(RANDOM_BLOCK, "last", prepared.blocks)

    def weights(rank):
        with together("cpu") as (team, _):
            network = build_network(settings, 1, 2, block, seed=rank)
            with torch.no_grad():
                for p in network.llm.block.parameters():
                    p.fill_(rank)
            Learner.of(network, team)
            return network.state_dict()

    one, other = in_ranks(weights, tmp_path)
    frozen = [name for name in one if name.startswith("llm.block.")]
    assert frozen
    for name in one:
        assert torch.equal(one[name], other[name]) != (name in frozen), name


def start(prepared, name, steps=4, fold="0", **words):
    return train(
        prepared.folder,
        fold,
        TrainingOptions(run=name, steps=steps, device="cpu", **({"workers": 0} | words)),
        results_folder=prepared.root / "results" / "Dataset007_Tiny",
        blocks_folder=prepared.blocks,
    )


def losses(folder):
    return [float(line.split(",")[2]) for line in (folder / "progress.csv").read_text().splitlines()[1:]]


def test_the_command_trains_with_two_processes_what_it_trains_with_one(prepared, tmp_path):
    from mvl_auto.cli.train import main

    alone = start(prepared, "alone")

    def command(rank):
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        root = str(prepared.root)
        code = main(["7", "fold0", "-n", "pair", "--steps", "4", "--workers", "0", "--device", "cpu", "--root", root])
        return code, sys.stdout.getvalue(), sys.stderr.getvalue()

    lead, other = in_ranks(command, tmp_path)
    assert lead[0] == other[0] == 0
    assert "4 steps" in lead[1]
    assert other[1:] == ("", "")
    folder = prepared.root / "results" / "Dataset007_Tiny" / "pair" / "fold0"
    state = read_state(folder)
    assert (state.step, state.processes, state.finished) == (4, 2, True)
    assert {path.name.partition(".")[0] for path in (folder / "validation").iterdir()} == set(state.validation_cases)
    assert losses(folder) == pytest.approx(losses(alone.folder), rel=1e-4)


def test_a_run_goes_to_its_end_where_one_process_has_memory_for_one_sample(prepared, tmp_path):
    alone = start(prepared, "four at once", batch_size=4)

    def short_of_memory(rank):
        whole = MedVisionLlama.forward

        def forward(own, image):
            if own.training and rank == 1 and len(image) > 1:
                raise torch.OutOfMemoryError("no memory")
            return whole(own, image)

        MedVisionLlama.forward = forward  # of this fork alone
        return start(prepared, "short of memory", batch_size=4)

    lead, other = in_ranks(short_of_memory, tmp_path)
    assert lead.steps == other.steps == 4
    assert losses(lead.folder) == pytest.approx(losses(alone.folder), rel=1e-3)


def test_a_run_goes_on_with_another_number_of_processes(prepared, tmp_path, caplog):
    caplog.set_level("WARNING")
    folder = start(prepared, "changing", steps=2).folder
    lead, other = in_ranks(lambda rank: start(prepared, "changing", steps=4), tmp_path)
    assert lead.steps == other.steps == 4
    assert lead.validation is not None
    assert other.validation is None
    assert start(prepared, "changing", steps=5).steps == 5
    assert read_state(folder).processes == 1
    assert "was computed by processes: 2, now it is 1" in caplog.text


@contextlib.contextmanager
def before_batch(step, do):
    """Call `do` in this process before it makes the batch of a step."""
    make = patches.Patches.batch
    patches.Patches.batch = lambda own, number: (number == step and do()) or make(own, number)
    try:
        yield
    finally:
        patches.Patches.batch = make


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_either_saves_once_and_ends_both(prepared, tmp_path, asked):
    name = f"signalled{asked}"

    def stopped(rank):
        def ask():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # torchrun passes on what Slurm has sent already

        with before_batch(2, ask) if rank == asked else contextlib.nullcontext():
            try:
                start(prepared, name, steps=50)
            except Stopped as stop:
                return stop.number
        return None

    assert in_ranks(stopped, tmp_path) == [signal.SIGTERM] * 2
    folder = prepared.root / "results" / "Dataset007_Tiny" / name / "fold0"
    assert read_state(folder).step == 3
    assert not (folder / "earlier.safetensors").exists()


@pytest.mark.parametrize("dying", [0, 1])
def test_where_one_dies_the_other_ends_with_one_line(prepared, tmp_path, dying):
    def run(rank):
        with before_batch(2, lambda: os._exit(9)) if rank == dying else contextlib.nullcontext():
            return start(prepared, f"dead{dying}", steps=50)

    results = in_ranks(run, tmp_path)
    assert results[dying] == 9
    error = results[1 - dying]
    assert isinstance(error, MvlError)
    assert "another process of this training has ended" in str(error)


def test_more_processes_than_samples_are_refused_once(prepared, tmp_path):
    results = in_ranks(lambda rank: start(prepared, "many"), tmp_path, ranks=3)
    assert str(results[0]) == (
        "a batch of 2 samples cannot be shared by 3 processes. Start at most 2, or give --batch-size 3."
    )
    assert all("another process" in str(each) for each in results[1:])
    assert not (prepared.root / "results" / "Dataset007_Tiny" / "many").exists()
