"""The scheduler: a pure state machine that decides what happens next."""

from jobd.scheduler.batch import Batch
from jobd.scheduler.core import Effects, Options, Scheduler, ended_message, refusal
from jobd.scheduler.roster import Death, Phase, Worker

__all__ = [
    "Batch",
    "Death",
    "Effects",
    "Options",
    "Phase",
    "Scheduler",
    "Worker",
    "ended_message",
    "refusal",
]
