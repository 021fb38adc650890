"""What a study is going to take, before it begins: runs, seconds, bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from mvl_auto.ablation.run import RunPlaces, RunSpec, plan_of_arm
from mvl_auto.plans import Plan, read_document

COPIES = 8  # of the trainable weights on disk: weights, average and two moments, in the last two checkpoints
FLOAT32 = 4  # bytes
RESERVE = 1.15  # validation and start of a run, beside its steps


@dataclass(frozen=True)
class Estimate:
    """runs: still to be done, of `total`. seconds: of one process. disk_bytes: at most, while it runs and after it."""

    runs: int
    total: int
    seconds: float
    disk_bytes: int


def estimate(specs: list[RunSpec], missing: list[RunSpec], places: RunPlaces, jobs: int) -> Estimate:
    """Times a step of each arm that is still to be trained on this device. Trains and writes nothing else.

    Raises MvlError when a block is not to be had.
    """
    from mvl_auto.llm import known_sizes, planned_layers
    from mvl_auto.network import build_network
    from mvl_auto.planners import TrainingStep, time_step
    from mvl_auto.planners.cost.dummy import DummyBlock, settings_for_dummy

    plan = read_document(places.preprocessed / "plans.json", Plan)
    seconds, largest = 0.0, 0
    for arm, count in Counter(spec.arm for spec in missing).items():
        spec = next(spec for spec in missing if spec.arm == arm)
        of_arm = plan_of_arm(plan, spec, places.blocks)
        configuration = of_arm.configuration(spec.basis.configuration)
        llm = configuration.network.llm
        named = llm.present and llm.source != "auto"
        block = known_sizes(llm.source, planned_layers(llm), places.blocks) if named else None
        step = TrainingStep(
            configuration.network,
            configuration.patch_size,
            configuration.batch_size,
            of_arm.input_channels(configuration),
            of_arm.labels,
            block,
        )
        length = spec.basis.length
        each = length.seconds or (length.steps or 0) * time_step(step, places.device)
        seconds += count * each * RESERVE
        block_like = cast(Any, DummyBlock.for_step(step))
        network = build_network(settings_for_dummy(step.settings), step.channels, step.outputs, block_like)
        largest = max(largest, sum(p.numel() for p in network.parameters() if p.requires_grad))
    at_once = len(missing) if places.keep else min(jobs, len(missing))
    return Estimate(len(missing), len(specs), seconds / max(jobs, 1), at_once * largest * FLOAT32 * COPIES)
