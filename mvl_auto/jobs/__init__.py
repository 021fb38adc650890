"""Work on many cases at once: worker processes, or a Dask cluster."""

from mvl_auto.jobs.outcome import JobFailed, WorkerDied, log_trace
from mvl_auto.jobs.parent import cause_of_end, end_with_parent, starting_workers
from mvl_auto.jobs.run import available_cores, run_jobs, worthwhile_workers

__all__ = [
    "JobFailed",
    "WorkerDied",
    "available_cores",
    "cause_of_end",
    "end_with_parent",
    "log_trace",
    "run_jobs",
    "starting_workers",
    "worthwhile_workers",
]
