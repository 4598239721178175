"""The HTTP door: commands, queries, the log and the workers, over HTTP. See docs/http.md."""

from journeyman.doors.http.application import http_app

__all__ = ["http_app"]
