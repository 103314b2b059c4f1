"""Whether a call may change what is served: a service that does so asks first.

| --management-address | --api-keys | on --address | on --management-address |
|---|---|---|---|
| no | no | refused | |
| no | yes | with a key of scope manage | |
| yes | no | refused | answered |
| yes | yes | refused | with a key of scope manage |

The scope is checked on the way in (:mod:`bertd_server.rpc.interceptors.authentication`).
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from bertd_server.errors import PermissionDenied
from bertd_server.system.logs import get_logger

log = get_logger("bertd")

_QUOTED = 128  # characters

caller_id: ContextVar[str] = ContextVar("caller_id", default="")
"""Id of the key of the call that this task answers; empty without one."""


@dataclass(frozen=True, slots=True)
class Management:
    """The policy of one address.

    Attributes:
        refusal: why calls that change the server are refused here; empty where they are not.
    """

    refusal: str = ""

    @classmethod
    def of(cls, *, elsewhere: bool, keys: bool) -> Management:
        """The policy of the main address.

        Args:
            elsewhere: whether there is a management address.
            keys: whether callers need keys.
        """
        if elsewhere:
            return cls("is answered on the management address alone: call it there")
        if keys:
            return cls()
        return cls(
            "changes what is served, which is off: start the server with --management-address, "
            "or with --api-keys and call with a key of scope manage"
        )

    def check(self, method: str, model: str) -> None:
        """Let a call change the server, and log who does.

        Args:
            method: its name, for the message.
            model: that it names, whatever that is.

        Raises:
            PermissionDenied: it may not.
        """
        if self.refusal:
            raise PermissionDenied(f"{method} {self.refusal}", reason="management_off")
        log.info("management call", method=method, model=model[:_QUOTED], key=caller_id.get())
