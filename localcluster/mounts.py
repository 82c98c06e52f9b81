"""Mounts that the daemons of a killed node leave behind."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from localcluster.errors import ClusterError

_MNT_DETACH = 2
_ROUNDS = 5


def below(folder: Path) -> list[Path]:
    """The mount points in a folder, innermost first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        for line in file:
            # The kernel writes blanks in names as \\040.
            point = Path(line.split()[4].encode("latin-1", "surrogateescape").decode("unicode_escape"))
            if point.is_relative_to(folder):
                found.append(point)
    return found[::-1]


def unmount_below(folder: Path) -> None:
    """Detach them all; rounds, for one name may carry several mounts."""
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(_ROUNDS):
        points = below(folder)
        if not points:
            return
        for point in points:
            libc.umount2(os.fsencode(point), _MNT_DETACH)
    raise ClusterError(f"{below(folder)} can't be unmounted: {os.strerror(ctypes.get_errno())}")
