"""One step of training in mixed precision: what moves, what does not, and that the gradients are those of float32."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import RANDOM_BLOCK, tiny, tiny_llm

from mvl_auto.llm import load_block
from mvl_auto.network import build_network
from mvl_auto.network.layers import keep_in_float32
from mvl_auto.network.loss import targets_of
from mvl_auto.network.step import Learner, StepContext, training_step
from mvl_auto.plans import LabelScheme

CPU = torch.device("cpu")
LABELS = LabelScheme(class_values=(0, 1, 2), class_names=("background", "a", "b"))
PATCH = (24, 16, 16)  # three tokens deep: of two, torch's bfloat16 goes wrong (layers.Convolution3d)
RATE = 1e-3
SCALE = 1024.0  # of the loss, in float16
FAR_TOO_LARGE = 2.0**40
NEAR = {"bfloat16": 0.25, "float16": 0.1}  # of all gradients together; the sign at a leaky ReLU flips for some voxels
PRECISIONS = {
    "float32": (torch.bfloat16, False),
    "bfloat16": (torch.bfloat16, True),
    "float16": (torch.float16, True),
}


@pytest.fixture(scope="module")
def half_block(tmp_path_factory):
    """As blocks rest in the bank: in bfloat16."""
    return load_block(RANDOM_BLOCK, "last", tmp_path_factory.mktemp("blocks")).to(torch.bfloat16)


def new_run(half_block, lora_rank: int = 0, kept: bool = False) -> Learner:
    """The gate is open and nothing decays, so that only a gradient moves a weight, and every one has some."""
    if lora_rank:
        pytest.importorskip("peft", reason="LoRA needs the extra [lora]")
    network = build_network(tiny(llm=tiny_llm(lora_rank=lora_rank)), 1, 3, copy.deepcopy(half_block)).train()
    torch.nn.init.ones_(network.llm.gate)
    if kept:
        keep_in_float32(network)
    run = Learner.of(network)
    for group in run.optimizer.param_groups:
        group["weight_decay"] = 0.0
    return run


def step(run: Learner, precision: str, scaler: torch.amp.GradScaler | None = None) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    image = torch.randn(2, 1, *PATCH, generator=random)
    label = torch.randint(0, 3, (2, *PATCH), generator=random, dtype=torch.int16)
    dtype, enabled = PRECISIONS[precision]
    autocast = torch.autocast("cpu", dtype, enabled=enabled)
    return training_step(run, image, label, StepContext(targets_of(LABELS, CPU), CPU, autocast, scaler), RATE)


def scaler_for(precision: str, scale: float = SCALE) -> torch.amp.GradScaler | None:
    return torch.amp.GradScaler("cpu", init_scale=scale) if precision == "float16" else None


def copied(run: Learner) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in run.network.named_parameters()}


@pytest.mark.parametrize("kept", [False, True], ids=["all rounded", "norms in float32"])
@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_steps_in_mixed_precision_move_what_trains_and_not_the_block(precision, lora_rank, kept, half_block):
    run, scaler = new_run(half_block, lora_rank, kept), scaler_for(precision)
    before = copied(run)
    for _ in range(2):  # an adapter's first half moves only once its second half, zero at first, has
        loss = step(run, precision, scaler)
        assert loss.isfinite()
    after = copied(run)
    still = {name for name, weight in after.items() if torch.equal(weight, before[name])}
    frozen = {name for name in after if name.startswith("llm.block.") and "lora_" not in name}
    assert frozen
    assert still == frozen
    assert all(weight.isfinite().all() for weight in after.values())
    assert all(weight.dtype == (torch.bfloat16 if name in frozen else torch.float32) for name, weight in after.items())


@pytest.mark.parametrize("kept", [False, True], ids=["all rounded", "norms in float32"])
@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_gradients_in_mixed_precision_are_near_those_of_float32(precision, lora_rank, kept, half_block):
    """After the step they are clipped, and no longer scaled."""
    full, mixed = new_run(half_block, lora_rank), new_run(half_block, lora_rank, kept)
    losses = step(full, "float32"), step(mixed, precision, scaler_for(precision))
    torch.testing.assert_close(*losses, rtol=0.02, atol=0)
    expected, found = (
        torch.cat([weight.grad.flatten() for weight in run.network.parameters() if weight.grad is not None])
        for run in (full, mixed)
    )
    assert (found - expected).norm() < NEAR[precision] * expected.norm()


def test_a_step_whose_scaled_gradients_overflow_is_left_out_and_the_next_scale_is_smaller(half_block):
    run, scaler = new_run(half_block), scaler_for("float16", FAR_TOO_LARGE)
    before = copied(run)
    assert step(run, "float16", scaler).isfinite()
    assert all(torch.equal(weight, before[name]) for name, weight in copied(run).items())
    assert scaler.get_scale() == FAR_TOO_LARGE / 2
