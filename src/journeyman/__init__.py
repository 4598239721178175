"""Journeyman: applications that live on one append-only message log, with workers."""

from journeyman.app import App
from journeyman.errors import (
    ApplyFailed,
    Busy,
    DefinitionError,
    Fenced,
    GiveUp,
    Invalid,
    JourneymanError,
    KeyReused,
    NotFound,
    NotReady,
    NotRunning,
    OutcomeUnknown,
    Outdated,
    Poisoned,
    RateLimited,
    Rejected,
    ServiceError,
    StoreError,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownName,
    WorkerFailed,
)
from journeyman.feature import Command, FailResult, Feature, Query, SetResult
from journeyman.message import Message, Record
from journeyman.receipts import Receipt
from journeyman.retry import Retry
from journeyman.status import WorkerStatus
from journeyman.store import MessageLog, Store, open_store
from journeyman.tables import State, Table
from journeyman.todo.jobs import DiscardJob, PauseWorker, ResumeWorker, RetryJob
from journeyman.todo.worker import Attempt, Job, TodoWorker, ends, opens, reacts
from journeyman.worker import Context, Schedule, Worker

__all__ = [
    "App",
    "ApplyFailed",
    "Attempt",
    "Busy",
    "Command",
    "Context",
    "DefinitionError",
    "DiscardJob",
    "FailResult",
    "Feature",
    "Fenced",
    "GiveUp",
    "Invalid",
    "Job",
    "JourneymanError",
    "KeyReused",
    "Message",
    "MessageLog",
    "NotFound",
    "NotReady",
    "NotRunning",
    "OutcomeUnknown",
    "Outdated",
    "PauseWorker",
    "Poisoned",
    "Query",
    "RateLimited",
    "Receipt",
    "Record",
    "Rejected",
    "ResumeWorker",
    "Retry",
    "RetryJob",
    "Schedule",
    "ServiceError",
    "SetResult",
    "State",
    "Store",
    "StoreError",
    "Table",
    "TodoWorker",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnknownName",
    "Worker",
    "WorkerFailed",
    "WorkerStatus",
    "ends",
    "open_store",
    "opens",
    "reacts",
]
