"""`python -m journeyman`."""

from journeyman.doors.cli import main

main()
