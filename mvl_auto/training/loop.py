"""The training loop of one fold.

Ended at any moment and started again with the same command, it resumes from the last checkpoint; with a limit in steps,
its losses are then those of a run without a stop (bit for bit on a CPU).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mvl_auto.errors import MvlError, Stopped
from mvl_auto.network.step import add_gradients, training_step
from mvl_auto.network.team import ALONE
from mvl_auto.progress import Advance, Progress
from mvl_auto.text import duration_text
from mvl_auto.training.patches import Batch
from mvl_auto.training.plot import draw_progress
from mvl_auto.training.record import append_progress, clock_in
from mvl_auto.training.schedule import TrainingLimit, learning_rate_factor
from mvl_auto.training.session import Session
from mvl_auto.training.stop import stop_requests

if TYPE_CHECKING:
    from mvl_auto.training.watch import Watch

log = logging.getLogger(__name__)

REPORT_EVERY = 10  # steps between looks at the loss
SAVE_EVERY = 120.0  # seconds between checkpoints
MOST_LEFT_OUT = 5  # steps in a row without a finite loss
MEMORY_KNOWN_AFTER = 10  # steps: what has fitted so long will go on to fit
IN_PARTS = "the memory of %s is too small for a whole batch: each is computed in %d parts, whose gradients are added"
WARM_UP_STEPS, TIMED_STEPS = 3, 5  # of a session: the first are slower


@dataclass
class Recent:
    """The steps since the last report, and the first steps of the session, timed."""

    losses: list[Tensor] = field(default_factory=list)
    left_out: list[tuple[int, list[str]]] = field(default_factory=list)  # step and cases, in a row
    count: int = 0
    waited: float = 0.0  # seconds
    seconds: list[float] = field(default_factory=list)

    def start_over(self) -> None:
        """After a report; in every process, also where another one reports."""
        self.losses.clear()
        self.count, self.waited = 0, 0.0
        del self.seconds[: -(WARM_UP_STEPS + TIMED_STEPS)]


def optimise(
    session: Session,
    batches: Iterator[Batch],
    limit: TrainingLimit,
    names: Sequence[str],
    progress: Progress,
    started: float,
    watch: Watch | None = None,
) -> None:
    """Train until the limit is reached. names: of the training cases. started: time.monotonic() of the session's start.

    Raises Stopped when a signal asked for it: the checkpoint is then of the last step. Raises MvlError when several
    steps in a row had no finite loss, or the memory is too small for a batch of one sample.
    """
    before, saved, recent = session.elapsed, time.monotonic(), Recent()
    peak = session.state.learning_rate
    assert peak is not None
    session.learner.network.train()
    session.elapsed = before + saved - started
    if limit.seconds is not None:
        left = max(0.0, limit.seconds - session.elapsed)
        log.info("%s for the training, until %s%s", duration_text(left), clock_in(left), _after(watch))
    with _bar(session, limit, progress) as advance, stop_requests(repeated=session.team.size > 1) as stop:
        while (share := limit.share_done(session.step, session.elapsed)) < 1:
            begun = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - begun
            if session.team.size > 1 and session.step == session.begun_at:
                fit_together(session, batch)
            rate = peak * learning_rate_factor(share)
            session.attach_block(share)
            loss = take_step(session, batch, rate)
            note_step(session, recent, loss, [names[place] for place in batch.cases.tolist()], waited)
            now = time.monotonic()
            recent.seconds.append(now - begun)
            spent = before + now - started
            advance(spent - session.elapsed if limit.steps is None else 1)
            session.elapsed = spent
            announce(session, limit, recent, watch)
            done = limit.share_done(session.step, session.elapsed)
            if session.step % REPORT_EVERY == 0 or done >= 1:
                if session.team.leads:
                    report(session, recent, (rate, done, now - started), advance, watch)
                    if now - saved > SAVE_EVERY and stop.number is None:
                        session.save()
                        draw_progress(session.folder)
                        saved = time.monotonic()
                recent.start_over()
            session.elapsed, stop.number = session.team.agree(session.elapsed, stop.number)
            if stop.number is not None and limit.share_done(session.step, session.elapsed) < 1:
                session.save()
                session.team.wait()  # if one process ends, torchrun ends the others: not before the checkpoint is whole
                raise Stopped(stop.number, f"step {session.step} is saved in {session.folder}")


def _bar(session: Session, limit: TrainingLimit, progress: Progress):  # type: ignore[no-untyped-def]
    if limit.steps is None:
        assert limit.seconds is not None
        return progress("training", limit.seconds, unit="s", done=session.elapsed)
    return progress("training", limit.steps, unit="step", done=session.step)


def fit_together(session: Session, batch: Batch) -> None:
    """Before the first step of several processes: into how many parts all of them cut their shares of a batch.

    Each tries its share alone, since a process that has no memory in a step leaves the others waiting. Raises MvlError
    in all of them where the memory of one is too small for the parts that all can make.
    """
    (parts,) = session.team.largest(_fitting_parts(session, batch))
    (fewest,) = session.team.largest(-len(batch.image))
    if parts > -fewest:
        raise MvlError(
            f"the memory is too small for {len(batch.image)} samples of a batch in one of the processes",
            remedy="Give a smaller --batch-size, or start more processes.",
        )
    if parts > session.context.parts:
        session.context = replace(session.context, parts=int(parts))
        log.warning(IN_PARTS, session.context.device, parts)


def _fitting_parts(session: Session, batch: Batch) -> int:
    """Into how many parts this process has to cut its share; more than its samples where one is too much."""
    alone = replace(session.context, targets=replace(session.context.targets, team=ALONE), parts=1)
    parts = session.context.parts
    while parts <= len(batch.image):
        image, label = (part.chunk(parts)[0].to(alone.device) for part in (batch.image, batch.label))
        try:
            add_gradients(session.learner.network, image, label, alone)
        except torch.OutOfMemoryError:
            parts *= 2
        else:
            break
        finally:
            _forget_step(session)
    return parts


def _forget_step(session: Session) -> None:
    session.learner.optimizer.zero_grad(set_to_none=True)
    if session.context.device.type == "cuda":
        torch.cuda.empty_cache()


def take_step(session: Session, batch: Batch, rate: float) -> Tensor:
    """A step; where the device's memory is too small, in more parts from now on. Returns the loss on the device."""
    while True:
        context = session.context
        try:
            image, label = (part.to(context.device, non_blocking=True) for part in (batch.image, batch.label))
            return training_step(session.learner, image, label, context, rate)
        except torch.OutOfMemoryError as error:
            parts = 2 * context.parts
            late = session.step - session.begun_at >= MEMORY_KNOWN_AFTER
            if late or parts > len(batch.image) or session.team.size > 1:  # the others are in the middle of this step
                raise MvlError(
                    f"the memory of {context.device} is too small for this network and its patches",
                    remedy="Plan again with less --memory, or free some.",
                ) from error
        _forget_step(session)
        session.context = replace(context, parts=parts)
        log.warning(IN_PARTS, context.device, parts)


def note_step(session: Session, recent: Recent, loss: Tensor, cases: list[str], waited: float) -> None:
    """Raises MvlError when too many steps in a row had no finite loss, naming their cases."""
    recent.count += 1
    recent.waited += waited
    session.waited += waited
    if bool(loss.isfinite()):
        recent.losses.append(loss)
        recent.left_out.clear()
        return
    recent.left_out.append((session.step, cases))
    log.warning("step %d is left out: its loss is not finite (cases %s)", session.step, ", ".join(cases))
    if len(recent.left_out) >= MOST_LEFT_OUT:
        which = "; ".join(f"step {step}: {', '.join(names)}" for step, names in recent.left_out)
        raise MvlError(
            f"{MOST_LEFT_OUT} steps in a row had no finite loss ({which}); the last checkpoint is as it was",
            file=session.folder,
            remedy="Look at these cases with mvl_doctor, or train with a smaller --lr.",
        )


def _after(watch: Watch | None) -> str:
    return "" if watch is None else "; then its validation"


def announce(session: Session, limit: TrainingLimit, recent: Recent, watch: Watch | None) -> None:
    """Log how long so many steps are going to take, once the first of the session have been timed."""
    if limit.steps is None or session.step - session.begun_at != WARM_UP_STEPS + TIMED_STEPS:
        return
    per_step = sum(recent.seconds[-TIMED_STEPS:]) / TIMED_STEPS
    left = (limit.steps - session.step) * per_step
    log.info(
        "%d steps at %.2f s on this device: about %s, until %s%s",
        limit.steps - session.step,
        per_step,
        duration_text(left),
        clock_in(left),
        _after(watch),
    )


def report(
    session: Session, recent: Recent, now: tuple[float, float, float], advance: Advance, watch: Watch | None
) -> None:
    """A line of progress.csv, the same for the logger, and the note behind the bar.

    now: the learning rate, the share of the run that is done, the seconds of this session.
    """
    rate, done, seconds_so_far = now
    mean = float(torch.stack(recent.losses).mean()) if recent.losses else math.nan
    seconds = sum(recent.seconds[-recent.count :])
    scores = None if watch is None else watch.look(session.learner, done, seconds_so_far)
    waited, speed = recent.waited / max(seconds, 1e-9), recent.count / max(seconds, 1e-9)
    append_progress(session, mean, rate, waited, scores)
    if session.logger is not None:
        figures = {"loss": mean, "learning_rate": rate, "share_waited": waited, "steps_per_second": speed}
        if scores is not None and watch is not None:
            figures |= {f"Dice/{name}": value for name, value in watch.per_name.items() if not math.isnan(value)}
            figures["Dice/mean"] = scores
        session.logger(session.folder, session.step, figures)
    notes = [f"loss {mean:.3f}", f"rate {rate:.1e}", f"{speed:.2f} steps/s"]
    if watch is not None and watch.dice is not None:
        notes.insert(1, f"Dice {watch.dice:.3f}")
    advance(0, note=", ".join(notes))
