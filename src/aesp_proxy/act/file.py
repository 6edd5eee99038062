"""A refusal as the kernel can tell it: the error number of a system call.

Which number is by the kind of reason, so that programs say something sensible: no
permission for a name, not permitted for a content, too large for what cannot be vetted,
an input/output error where the program itself failed. Pure.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from aesp_proxy.act.denial import Denial
from aesp_proxy.model.decision import Reason

_ERRNOS: Final = {
    Reason.SECRET_FOUND: errno.EPERM,
    Reason.UNSCANNABLE: errno.EPERM,
    Reason.PATCH_FORBIDDEN: errno.EPERM,
    Reason.PATCH_TOO_LARGE: errno.EFBIG,
    Reason.PATCH_UNBALANCED: errno.EPERM,
    Reason.LIMIT_EXCEEDED: errno.EFBIG,
    Reason.UNSUPPORTED: errno.EPERM,
    Reason.MALFORMED: errno.EINVAL,
    Reason.GUARD_FAILED: errno.EIO,
    Reason.ENGINE_FAILED: errno.EIO,
    Reason.RECORD_FAILED: errno.EIO,
    Reason.INTERCEPTOR_FAILED: errno.EIO,
}


@dataclass(frozen=True, slots=True)
class FileDenial:
    """A refused access to a file; the zero value of ``errno`` would let it pass, so is never."""

    denial: Denial

    @property
    def errno(self) -> int:
        """Number of the error that the system call ends in (errno(3)): EACCES for most."""
        return _ERRNOS.get(self.denial.decision.reason, errno.EACCES)
