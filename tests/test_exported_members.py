"""What `import journeyman` offers changes only on purpose: here, and in the documentation."""

from __future__ import annotations

import journeyman


def test_exported_members() -> None:
    assert sorted(journeyman.__all__) == journeyman.__all__, "kept sorted"
    assert journeyman.__all__ == [
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


def test_every_exported_member_is_there_and_documented() -> None:
    for name in journeyman.__all__:
        assert getattr(journeyman, name).__doc__, f"{name} has no docstring"
