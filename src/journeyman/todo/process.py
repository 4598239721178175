"""What the to-do workers of one process share."""

from __future__ import annotations

from collections.abc import Callable


class Process:
    """The instance id of this process, and that one suspect runs in it at a time.

    Args:
        instance: its id until it is declared gone while it lives; then it goes on under another one.
        on_loss: called once when the process reads of its own loss; `renew` has to follow.
    """

    def __init__(self, instance: str, *, on_loss: Callable[[], None]) -> None:
        self.instance = instance
        #: Whether attempts may begin under the id.
        self.ready = True
        #: The worker and job of the suspect that runs here.
        self.suspect: tuple[str, str] | None = None
        self._on_loss = on_loss
        self._wakes: list[Callable[[], None]] = []

    def join(self, wake: Callable[[], None]) -> None:
        """Have `wake` called whenever there may be more to start: a suspect has ended, or the process has a new id."""
        self._wakes.append(wake)

    def ended(self, job: tuple[str, str]) -> None:
        """An attempt at that job is over here."""
        if self.suspect == job:
            self.suspect = None
            self._wake()

    def lost(self, instance: str) -> None:
        """The log says that the instance is gone: begin nothing more under that id."""
        if self.ready and instance == self.instance:
            self.ready = False
            self._on_loss()

    def renew(self, instance: str) -> None:
        """Go on under another id."""
        self.instance, self.ready = instance, True
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()
