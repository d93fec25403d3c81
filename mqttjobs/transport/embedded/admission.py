"""Who may use the embedded broker: everyone, and everyone's session is kept."""

from __future__ import annotations

from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session


class LetEveryoneIn(BaseAuthPlugin):  # type: ignore[misc]  # amqtt ships no types
    """Lets everyone in by name, because amqtt keeps nothing for a session that it calls anonymous."""

    async def authenticate(self, *, session: Session) -> bool:
        """Let the session in, and keep it."""
        session.is_anonymous = False
        return True
