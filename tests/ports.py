"""Ports for servers that are told where to listen, also after they were killed and before they are started again.

A port that was merely free is not enough for that. The system hands it out again, as the near end of any connection,
while its server is down; and another process of the tests may find it free as well.
"""

from __future__ import annotations

import random
import socket
from typing import Final

#: Below what Linux (32768 on) and macOS (49152 on) hand out by themselves.
_PORTS: Final = range(12_000, 32_000)

#: How many of them are tried: far more than are ever taken.
_TRIES_MAX: Final = 1_000

#: Not the one that a test may seed, as hypothesis does: all processes would try the same ports.
_chance: Final = random.Random()

#: A UDP socket on each port that was given out keeps it ours: nobody else asks for that one here, and the kernel gives
#: it back however this process ends.
_kept: Final[list[socket.socket]] = []


def free_port() -> int:
    """A port of 127.0.0.1 that is free, and that no other call gets as long as this process lives, in any process."""
    for _ in range(_TRIES_MAX):
        if _is_ours(port := _chance.choice(_PORTS)):
            return port
    raise RuntimeError(f"none of {_TRIES_MAX} ports is free")


def _is_ours(port: int) -> bool:
    kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        kept.bind(("127.0.0.1", port))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        kept.close()
        return False
    _kept.append(kept)
    return True
