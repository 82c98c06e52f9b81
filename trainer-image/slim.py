"""Runs once while the trainer's image is built: takes away what no training uses, and only that.

Every shared library that goes is one that nothing else links or loads; the build fails if that stops being true.
"""

import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))

LIBRARIES = (
    "nvidia/cu13/lib/libcusolverMg.so.*",  # one solver over several GPUs; torch links libcusolver
    "nvidia/cu13/lib/libnvrtc*.alt.so.*",  # a second build of the run-time compiler, chosen by name alone
    "nvidia/cu13/lib/libnvblas.so.*",  # a drop-in for CPU BLAS, for LD_PRELOAD
    "nvidia/cu13/lib/libcufftw.so.*",  # FFTW's interface
)
FOR_COMPILERS = (
    "torch/include",  # headers, static libraries and the like: there is no compiler in the image
    "torch/share/cmake",
    "torch/bin/protoc*",
    "nvidia/nvshmem/lib/libnvshmem_device.*",
    "nvidia/*/include/cudnn*",
    "**/*.a",
    "sympy/**/tests",
)


def main() -> None:
    doomed = {path for pattern in LIBRARIES for path in SITE.glob(pattern)}
    if users := sorted(set(users_of({path.name for path in doomed}, doomed))):
        sys.exit(f"slim.py would break {', '.join(users)}")
    freed = sum(remove(path) for path in [*doomed, *(path for pattern in FOR_COMPILERS for path in SITE.glob(pattern))])
    print(f"slim: {freed / 1e6:.0f} MB less")


def users_of(names: set[str], doomed: set[Path]) -> Iterator[str]:
    """Remaining libraries in whose bytes one of the names stands: linked, or loaded by name."""
    if not names:
        return
    pattern = re.compile(b"|".join(re.escape(name.encode()) for name in sorted(names)))
    for path in SITE.rglob("*.so*"):
        if path not in doomed and path.is_file() and not path.is_symlink() and mentions(path, pattern):
            yield f"{path.relative_to(SITE)}"


def mentions(path: Path, pattern: re.Pattern[bytes], chunk: int = 1 << 24) -> bool:
    with path.open("rb") as file:
        tail = b""
        while data := file.read(chunk):
            if pattern.search(tail + data):
                return True
            tail = data[-256:]
    return False


def remove(path: Path) -> int:
    """Bytes that went."""
    if not path.exists():
        return 0  # inside a folder that went before
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    freed = sum(file.lstat().st_size for file in files)
    path.unlink() if path.is_file() else shutil.rmtree(path)
    return freed


if __name__ == "__main__":
    main()
