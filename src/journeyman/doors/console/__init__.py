"""The operator's console: what an application does, why, and what one can do about it."""

from journeyman.doors.console.router import console_router

__all__ = ["console_router"]
