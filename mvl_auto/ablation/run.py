"""One run of an ablation: the plan of its arm, training, scores, its record. It resumes where it was stopped."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.ablation.arms import ARMS
from mvl_auto.ablation.record import RECORDS, RUNS, Amount, Basis, BlockOfRun, Machine, Rates, RunRecord, none_if_nan
from mvl_auto.files import clear_unfinished, ensure_writable_folder
from mvl_auto.locks import locked
from mvl_auto.plans import Plan, read_document, write_document

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mvl_auto.datasets import Case
    from mvl_auto.evaluation import Summary
    from mvl_auto.runs.checkpoint import State
    from mvl_auto.training.job import TrainingJob
    from mvl_auto.training.patches import Batch

log = logging.getLogger(__name__)

FIRST_BATCHES = 2
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class RunSpec:
    """What one run is: all that decides its result."""

    name: str
    basis: Basis
    arm: str
    amount: Amount
    fold: str
    seed: int
    rates: Rates
    training_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class RunPlaces:
    """The folders that a run needs, and what it computes on.

    keep: leave its checkpoint and predictions there. records: name of the folder of its record. threads: of torch;
    None: as they are. looks: take the free looks at the trained network.
    """

    study: Path
    preprocessed: Path
    blocks: Path
    device: str = "auto"
    keep: bool = False
    records: str = RECORDS
    threads: int | None = None
    looks: bool = True

    def record_of(self, name: str) -> Path:
        return self.study / self.records / f"{name}.json"


def finish_run(spec: RunSpec, places: RunPlaces) -> RunRecord:
    """Train, validate and record one run; what is done already is not done again.

    Raises MvlError for what the user can mend, Stopped when a signal ended it after a checkpoint.
    """
    from mvl_auto.cache import shared_lock
    from mvl_auto.logs import log_file
    from mvl_auto.training.lookup import keep_plan
    from mvl_auto.training.train import train_network, validate_fold

    path = places.record_of(spec.name)
    if path.is_file():
        return read_document(path, RunRecord)
    if places.threads is not None:
        import torch

        torch.set_num_threads(places.threads)
    job = job_of(spec, places)
    folder = ensure_writable_folder(job.folder)
    with (
        locked(folder, "training"),
        log_file(folder / "log.txt"),
        shared_lock(job.places.cache(job.fold.configuration)),
    ):
        clear_unfinished(folder)
        keep_plan(job.places.run, job.fold.plan)
        state = train_network(job)
        summary = validate_fold(job, mirror=False)  # half the time, and the same for all arms
        assert summary is not None, "a run keeps cases apart"
        record = record_of(spec, places, job, state, summary)
        ensure_writable_folder(path.parent)
        write_document(path, record)
    if not places.keep:
        shutil.rmtree(job.places.run)
    return record


def job_of(spec: RunSpec, places: RunPlaces) -> TrainingJob:
    """The training of a run. Raises MvlError when the cases are not in the cache, or the block is not to be had."""
    from mvl_auto.network.device import choose_device
    from mvl_auto.training.job import FoldOfPlan, Places, TrainingJob
    from mvl_auto.training.lookup import PLAN_AGAIN, check_cache
    from mvl_auto.training.schedule import TrainingLimit

    plan = plan_of_arm(read_document(places.preprocessed / "plans.json", Plan, PLAN_AGAIN), spec, places.blocks)
    configuration = plan.configuration(spec.basis.configuration)
    fold = FoldOfPlan(plan, configuration, spec.fold, spec.training_cases, spec.validation_cases)
    check_cache(places.preprocessed, plan, configuration, fold.cases)
    return TrainingJob(
        fold,
        Places(places.preprocessed, places.study / RUNS / spec.name, places.blocks),
        choose_device(places.device),
        limit=TrainingLimit(spec.basis.length.steps, spec.basis.length.seconds),
        learning_rate=spec.rates.learning_rate,
        seed=spec.seed + ARMS[spec.arm].seed_shift,
        workers=0,
    )


def plan_of_arm(plan: Plan, spec: RunSpec, blocks: Path) -> Plan:
    """The plan with its configuration changed as the arm says. Other layers are those of the planned block's donor."""
    from mvl_auto.llm import ensure_block, planned_layers

    configuration = plan.configuration(spec.basis.configuration)
    planned = configuration.network
    card = ensure_block(planned.llm.source, planned_layers(planned.llm), blocks, planned.llm.hidden_size)
    network = ARMS[spec.arm].change(planned, card.geometry)
    if network.llm.present:
        llm = network.llm.model_copy(update={"mapper_rate": spec.rates.mapper_rate})
        if llm.source == "auto" and llm.layers != card.layers:
            llm = llm.model_copy(update={"source": card.source, "layer": card.layer})
        network = network.model_copy(update={"llm": llm})
    changed = configuration.model_copy(update={"network": network})
    return plan.model_copy(update={"configurations": {**plan.configurations, changed.name: changed}})


def record_of(spec: RunSpec, places: RunPlaces, job: TrainingJob, state: State, summary: Summary) -> RunRecord:
    from mvl_auto.ablation.free_looks import free_dice, gradient_cosines
    from mvl_auto.runs import load_trained
    from mvl_auto.runs.trained import load_block_of, network_of

    block = load_block_of(job.fold.configuration, state, places.blocks)
    at_start = network_of(job.fold.plan, job.fold.configuration, block, job.seed)
    planned = read_document(places.preprocessed / "plans.json", Plan).configuration(spec.basis.configuration)
    trained = load_trained(job.folder, places.blocks)
    gate = None if trained.network.llm is None else trained.network.llm.gate
    weights = list(at_start.parameters())
    return RunRecord(
        **{
            name: getattr(spec, name) for name in ("name", "basis", "arm", "amount", "fold", "seed", "rates", "command")
        },
        training_cases=spec.training_cases,
        initial_hash=hash_of_tensors(shared_weights(at_start, planned.network.depth)),
        batches_hash=hash_of_batches(job),
        trainable_parameters=sum(p.numel() for p in weights if p.requires_grad),
        frozen_parameters=sum(p.numel() for p in weights if not p.requires_grad),
        block=None
        if state.block is None
        else BlockOfRun(**state.block.model_dump(include={"source", "layer", "layers", "sha256"})),
        steps=state.step,
        seconds=state.elapsed,
        started=datetime.fromtimestamp((job.folder / "log.txt").stat().st_ctime, UTC).isoformat(timespec="seconds"),
        machine=machine_of(job, state),
        scores=scores_of(summary),
        gate=None if gate is None else float(gate.detach().mean()),
        free_looks=free_dice(trained, validation_cases(job), str(job.device)) if places.looks else None,
        gradient_cosines=gradient_cosines(trained, first_patches(job), job.device) if places.looks else None,
    )


def shared_weights(network: nn.Module, depth: int) -> Iterable[Tensor]:
    """The weights that every arm has: all but the LLM part and what is deeper than the planned trunk."""
    for name, weight in network.named_parameters():
        part, _, rest = name.partition(".")
        if part != "llm" and not (part == "trunk" and int(rest.partition(".")[0]) >= depth):
            yield weight


def hash_of_tensors(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def first_patches(job: TrainingJob) -> list[Batch]:
    """The first batches of the run."""
    from mvl_auto.training.cases import Cases, memory_for_cases
    from mvl_auto.training.patches import Patches

    cases = Cases(job.places.cache(job.fold.configuration), None, memory_for_cases(0))
    patches = Patches(cases, job.fold.training_cases, job.fold.configuration, job.fold.plan.labels, job.seed)
    return [patches.batch(step) for step in range(FIRST_BATCHES)]


def hash_of_batches(job: TrainingJob) -> str:
    """Of the first batches: which voxels of which cases, changed how."""
    return hash_of_tensors(part for batch in first_patches(job) for part in (batch.image, batch.label, batch.cases))


def validation_cases(job: TrainingJob) -> list[Case]:
    """In the raw dataset. Raises MvlError when it is not there any more, or one of its cases."""
    from mvl_auto.training.train import raw_dataset
    from mvl_auto.training.validation import case_named

    raw = raw_dataset(job.places.preprocessed)
    cases = {case.name: case for case in raw.cases}
    return [case_named(name, cases, raw) for name in job.fold.validation_cases]


def machine_of(job: TrainingJob, state: State) -> Machine:
    import torch

    from mvl_auto.report.machine import describe_environment

    return Machine(
        processor=describe_environment().processor,
        instruction_sets=instruction_sets(),
        device=str(job.device),
        threads=state.threads or torch.get_num_threads(),
        precision=state.precision or "float32",
        torch_version=torch.__version__,
    )


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Those of INSTRUCTION_SETS that this CPU has; empty where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def scores_of(summary: Summary) -> dict[str, dict[str, float | None]]:
    """Dice by case and label."""
    scores: dict[str, dict[str, float | None]] = {}
    for row in summary.table[["case", "label", "dice"]].itertuples(index=False):
        scores.setdefault(str(row.case), {})[str(row.label)] = none_if_nan(row.dice)
    return scores
