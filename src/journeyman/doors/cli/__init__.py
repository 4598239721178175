"""The command line: `journeyman`."""

from journeyman.doors.cli.main import main

__all__ = ["main"]
