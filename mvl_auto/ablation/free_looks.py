"""What a trained network segments without parts of it: Dice after a change at prediction only, without training.

    without block    the tokens pass the LLM part as they are
    mean of block    what the LLM part adds to a token is replaced by the mean of what it adds to all tokens
    without trunk    the trunk's blocks are left out; the LLM part stays, and reads the tokens of the stem

A part whose absence costs nothing here may still have helped in training. What it brings there, only networks that were
trained without it can say (mvl_ablate).

And one look at training: the cosine between the gradients of two samples, with the LLM part and without it. Samples
whose gradients agree teach the same, which is how a frozen block was said to help (docs/evidence.md).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvl_auto.ablation.record import mean_over_cases, none_if_nan
from mvl_auto.datasets import Case, find_cases, load_case, split_volumes
from mvl_auto.errors import MvlError
from mvl_auto.inference.predict import make_network_input, predict_prepared
from mvl_auto.inference.windows import PredictionSettings
from mvl_auto.network.loss import Targets, deep_loss, targets_of
from mvl_auto.preprocessing import preprocess_case
from mvl_auto.progress import Progress, silent

if TYPE_CHECKING:
    from mvl_auto.network import MedVisionLlama
    from mvl_auto.runs import Trained
    from mvl_auto.training.patches import Batch

AS_IT_IS = "as it is"
WITHOUT_BLOCK, MEAN_OF_BLOCK, WITHOUT_TRUNK = "without block", "mean of block", "without trunk"


class Through(nn.Module):
    """A block of the trunk that passes its tokens on as they are."""

    def forward(self, x_bnd: Tensor, grid: Sequence[int]) -> Tensor:
        return x_bnd


@contextmanager
def without_block(network: MedVisionLlama) -> Iterator[None]:
    assert network.llm is not None
    before = network.llm.attached
    network.llm.attached = False
    try:
        yield
    finally:
        network.llm.attached = before


@contextmanager
def mean_of_block(network: MedVisionLlama) -> Iterator[None]:
    def mean(module: nn.Module, inputs: tuple[Any, ...], out_bmd: Tensor) -> Tensor:
        return out_bmd.mean(dim=1, keepdim=True).expand_as(out_bmd)

    assert network.llm is not None
    hook = network.llm.map_out.register_forward_hook(mean)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def without_trunk(network: MedVisionLlama) -> Iterator[None]:
    before = network.trunk
    network.trunk = nn.ModuleList(Through() for _ in before)
    try:
        yield
    finally:
        network.trunk = before


@contextmanager
def unchanged(network: MedVisionLlama) -> Iterator[None]:
    yield


LOOKS: Mapping[str, Callable[[MedVisionLlama], Any]] = {
    AS_IT_IS: unchanged,
    WITHOUT_BLOCK: without_block,
    MEAN_OF_BLOCK: mean_of_block,
    WITHOUT_TRUNK: without_trunk,
}


def looks_of(network: MedVisionLlama) -> tuple[str, ...]:
    """Those of LOOKS that this network allows: without an LLM part nothing of it can be changed."""
    of_block = (WITHOUT_BLOCK, MEAN_OF_BLOCK)
    return tuple(name for name in LOOKS if network.llm is not None or name not in of_block)


def free_dice(
    trained: Trained, cases: Sequence[Case], device: str, progress: Progress = silent
) -> dict[str, float | None]:
    """Mean Dice over the labels of a case, then over the cases, after each change; None where it is not defined.

    cases: with labels. device: not "auto". Without mirroring.
    Raises MvlError when a case cannot be read, has no label, or cannot be predicted.
    """
    from mvl_auto.evaluation import score_case

    network = trained.network.to(device)
    settings = PredictionSettings(device, mirror=False)
    names = looks_of(network)
    scores: dict[str, dict[str, dict[str, float | None]]] = {name: {} for name in names}
    with progress("looking", len(cases)) as advance:
        for case in cases:
            volume, classes = load_case(case, trained.labels, len(trained.plan.channels))
            assert classes is not None, "a case that is scored has a label"
            prepared = preprocess_case(volume.array, volume.spacing, None, trained.plan, trained.configuration)
            image = make_network_input(prepared, None, trained.plan, trained.configuration)
            for name in names:
                with LOOKS[name](network):
                    predicted = predict_prepared(
                        [network], trained.labels, trained.configuration, image, prepared.trail, settings
                    )
                found = score_case(classes, predicted.classes, trained.labels)
                scores[name][case.name] = {each.label: none_if_nan(each.metrics["dice"]) for each in found}
            advance(1, note=case.name)
    return {name: none_if_nan(mean_over_cases(of_look)) for name, of_look in scores.items()}


def with_references(images: Path, references: Path, num_channels: int) -> list[Case]:
    """The images of a folder, each with the label file of its name.

    Raises MvlError when an image has no label file, or there is nothing to read.
    """
    from mvl_auto.evaluation.pairs import label_files

    labels = label_files(references, "reference")
    cases = split_volumes(find_cases(images, num_channels))
    for case in cases:
        if unicodedata.normalize("NFC", case.name) not in labels:
            raise MvlError(
                f"has no reference for the image {case.name}", file=references, remedy="Add it, or remove the image."
            )
    return [replace(case, label=labels[unicodedata.normalize("NFC", case.name)]) for case in cases]


def gradient_cosines(trained: Trained, batches: Sequence[Batch], device: torch.device) -> dict[str, float | None]:
    """Mean cosine between the gradients of every two samples of `batches`, as it is and without the LLM part.

    Of the weights of stem, tokens and trunk, at the end of training. None where a gradient is zero.
    """
    network = trained.network.to(device)
    targets = targets_of(trained.labels, device, trained.configuration.batch_dice)
    samples = [
        (batch.image[n : n + 1].to(device), batch.label[n : n + 1].to(device))
        for batch in batches
        for n in range(len(batch.image))
    ]
    found = {}
    for name in (name for name in looks_of(network) if name in (AS_IT_IS, WITHOUT_BLOCK)):
        with LOOKS[name](network):
            found[name] = mean_cosine([gradient(network, image, label, targets) for image, label in samples])
    return found


def gradient(network: MedVisionLlama, image_bczyx: Tensor, label_bzyx: Tensor, targets: Targets) -> Tensor:
    """Of the loss, with respect to the weights that come before the LLM part or beside it, in one row."""
    weights = [p for part in (network.stem, network.tokens, network.trunk) for p in part.parameters()]
    network.train()
    try:
        loss = deep_loss(network(image_bczyx), label_bzyx, targets)
    finally:
        network.eval()
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return torch.cat([part.flatten() for part in found if part is not None])


def mean_cosine(rows: Sequence[Tensor]) -> float | None:
    """Mean cosine of every two rows; None where a row is zero or there is only one."""
    stacked = torch.stack(list(rows))
    sizes = stacked.norm(dim=1, keepdim=True)
    if len(rows) < 2 or not bool((sizes > 0).all()):
        return None
    cosines = (stacked / sizes) @ (stacked / sizes).T
    above = torch.triu_indices(len(rows), len(rows), offset=1)
    return float(cosines[above[0], above[1]].mean())
