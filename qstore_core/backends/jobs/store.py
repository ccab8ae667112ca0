"""Ids of jobs in flight, in a folder: a program that crashed finds its pending jobs and fetches them.

One small file per job, named by what was submitted and by the process that waits for it; written before anybody waits,
removed when the result has arrived or the job was cancelled. A file outlives a crash and an outage.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import uuid
from pathlib import Path

from ...errors import SpecError

__all__ = ["JobStore", "digest"]

_NOBODY = "0"
_LONGEST = 4096  # bytes of a job id
_LIFE = uuid.uuid4().hex[:12]  # process numbers are used again


def digest(*parts: bytes) -> str:
    """A name for what was submitted: equal parts, equal name.

    Example:
        >>> digest(b"circuit", b"theta") == digest(b"circuit", b"theta") != digest(b"circuitt", b"heta")
        True
    """
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()[:40]


class JobStore:
    """Job ids by what was submitted; safe between threads and processes of one machine.

    Args:
        folder: Made when the first job is kept. One per service.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Touch nothing yet."""
        self.folder = Path(folder)

    def keep(self, key: str, job: str) -> str:
        """Write down a job that this process waits for.

        Returns:
            The name under which `drop` and `release` know it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{key}.{_me()}.{uuid.uuid4().hex}"
        draft = self.folder / f".{name}"
        draft.write_text(job, encoding="utf-8")
        os.replace(draft, self.folder / name)  # never half a file, whenever the program dies
        return name

    def claim(self, key: str) -> tuple[str, str] | None:
        """Take over one job that nobody waits for any more.

        Returns:
            `(job id, name)`, or None where there is none. Nobody else gets it.
        """
        if not self.folder.is_dir():
            return None
        for found in sorted(self.folder.glob(f"{key}.*")):
            parts = found.name.split(".")
            if len(parts) != 3 or _waits(parts[1]):
                continue
            name = f"{key}.{_me()}.{uuid.uuid4().hex}"
            with contextlib.suppress(OSError):  # of several claimants one succeeds
                os.rename(found, self.folder / name)
                return _job_of(self.folder / name), name
        return None

    def drop(self, name: str) -> None:
        """Forget a job."""
        with contextlib.suppress(OSError):
            (self.folder / name).unlink()

    def release(self, name: str) -> None:
        """Leave a job to whoever asks for its values next, this program included."""
        key, _, unique = name.split(".")
        with contextlib.suppress(OSError):
            os.rename(self.folder / name, self.folder / f"{key}.{_NOBODY}.{unique}")

    def pending(self) -> dict[str, str]:
        """Ids of all jobs that are written down, by name."""
        jobs = {}
        for path in sorted(self.folder.glob("[0-9a-f]*.*.*")) if self.folder.is_dir() else []:
            with contextlib.suppress(OSError):
                jobs[path.name] = _job_of(path)
        return jobs


def _job_of(path: Path) -> str:
    """The job id in a file that another process wrote.

    Raises:
        SpecError: it holds something else.
    """
    with path.open("rb") as file:
        content = file.read(_LONGEST + 1)
    try:
        job = content.decode("utf-8")
    except UnicodeDecodeError:
        job = ""
    if not job or len(content) > _LONGEST or not job.isprintable():
        raise SpecError(
            f"{path} holds no job id, which is a line of printable text of at most {_LONGEST} bytes. Was the folder "
            "given to something else, or a disk full? Remove the file to submit the job again."
        )
    return job


def _me() -> str:
    return f"{_host()}-{os.getpid()}-{_LIFE}"


def _host() -> str:
    return digest(socket.gethostname().encode())[:8]


def _waits(owner: str) -> bool:
    """Whether the process that wrote a job down is still there."""
    if owner in (_NOBODY, _me()):
        return owner != _NOBODY
    host, _, rest = owner.partition("-")
    pid = rest.partition("-")[0]
    if host != _host() or not pid.isdecimal() or int(pid) == os.getpid() or os.name == "nt":
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
