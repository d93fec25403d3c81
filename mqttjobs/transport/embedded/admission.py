"""Access to the embedded broker: everyone may connect, and every session is kept."""

from __future__ import annotations

from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session


class LetEveryoneIn(BaseAuthPlugin):  # type: ignore[misc]  # amqtt ships no types
    """Accepts every client as a named user, because amqtt keeps no session of an anonymous one."""

    async def authenticate(self, *, session: Session) -> bool:
        """Accept the session, and mark it as one to keep."""
        session.is_anonymous = False
        return True
