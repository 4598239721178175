"""The console: what an operator looks at, for any application."""

from journeyman.doors.console.router import console_router

__all__ = ["console_router"]
