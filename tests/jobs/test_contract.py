"""What holds for jobs however they are run: in this process, in worker processes, on a Dask cluster."""

from __future__ import annotations

import os
from functools import partial

import pytest
from jobs import fussy, large, mortal, talkative
from jobs import square as squared

from mvl_auto.errors import MvlError
from mvl_auto.jobs import JobFailed, WorkerDied


def test_every_job_is_done_once(run):
    found = list(run(squared, range(7)))
    assert sorted((job, result[0]) for job, result in found) == [(n, n * n) for n in range(7)]


def test_no_jobs_are_no_results(run):
    assert list(run(squared, [])) == []


def test_other_processes_do_the_work(run_elsewhere):
    assert os.getpid() not in {result[1] for _, result in run_elsewhere(squared, range(7))}


def test_what_a_job_raises_is_its_result(run):
    found = dict(run(fussy, range(5)))
    assert [found[n] for n in (0, 1, 4)] == [0, 1, 4]
    assert isinstance(found[2], MvlError)
    assert (str(found[2]), found[2].remedy) == ("two.nii.gz: is odd. Remove it.", "Remove it.")
    assert isinstance(found[3], JobFailed)
    assert str(found[3]) == "KeyError: 'three'"
    assert "in fussy" in found[3].trace


def test_what_went_wrong_is_one_short_line_and_the_trace_has_all_of_it(run):
    ((_, failure),) = run(talkative, [1])
    assert isinstance(failure, JobFailed)
    assert "\n" not in str(failure)
    assert len(str(failure)) <= 500
    assert "the last line" in failure.trace


def test_results_larger_than_a_pipe_come_back_whole(run):
    found = dict(run(large, range(3)))
    assert {job: (len(result), set(result)) for job, result in found.items()} == {n: (4 << 20, {n}) for n in range(3)}


def test_a_job_whose_worker_dies_is_tried_again_and_the_others_are_done(run_elsewhere, tmp_path):
    on_dask = "scheduler" in run_elsewhere.keywords
    found = dict(run_elsewhere(partial(mortal, folder=tmp_path, waits=on_dask), range(6)))
    assert {job: result for job, result in found.items() if job != 2} == {0: 0, 1: 1, 3: 3, 4: 4, 5: 5}
    assert isinstance(found[2], WorkerDied)
    assert (tmp_path / "1").read_text() == "x"
    assert "died" in str(found[2])
    assert 2 <= len((tmp_path / "2").read_text()) <= 4, "Dask tries it twice among the others, twice alone"


@pytest.mark.parametrize("taken", [0, 1])
def test_jobs_that_are_not_taken_are_left(run, taken):
    jobs = run(squared, range(50))
    for _ in range(taken):
        next(jobs)
    jobs.close()
