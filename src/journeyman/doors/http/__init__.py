"""The HTTP door: commands, queries, the log and the workers, over HTTP. See docs/http.md."""

from journeyman.doors.http.application import http_app
from journeyman.doors.http.server import serving

__all__ = ["http_app", "serving"]
