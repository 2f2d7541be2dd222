"""The scheduler: a pure state machine that decides what happens next."""

from jobd.scheduler.arrays import Array
from jobd.scheduler.batch import Batch, Range
from jobd.scheduler.blocked import Sources, blame, root_of
from jobd.scheduler.core import Scheduler, ended_message
from jobd.scheduler.effects import Effects
from jobd.scheduler.roster import Death, Phase, Worker
from jobd.scheduler.staff import Options
from jobd.scheduler.streams import Follower, Streams

__all__ = [
    "Array",
    "Batch",
    "Death",
    "Effects",
    "Follower",
    "Options",
    "Phase",
    "Range",
    "Scheduler",
    "Sources",
    "Streams",
    "Worker",
    "blame",
    "ended_message",
    "root_of",
]
