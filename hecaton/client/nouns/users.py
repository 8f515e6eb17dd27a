"""Who may use the server (for admins), and what each has stored and waiting."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from hecaton.client.nouns.calls import Calls, member, path_in
from hecaton.core.model import KeyScope, Role
from hecaton.wire import api
from hecaton.wire.api import API, Clear, Cleared, Key, NewKey, Usage, UserChange


class UserCalls(Calls):
    """Part of `Client`."""

    def create_user(self, username: str, password: str, role: Role | str = Role.USER) -> api.UserView:
        body = api.NewUser(username, password, member(Role, role))
        return self._transport.call("POST", f"{API}/users", api.UserView, body)

    def users(self) -> list[api.UserView]:
        return self._transport.call("GET", f"{API}/users", list[api.UserView])

    def update_user(
        self, username: str, role: Role | str | None = None, *, uid: int | UnsetType | None = UNSET
    ) -> api.UserView:
        """Give a user another role: what they began under the old one ends. Conflict for the last admin. `uid`: as whom
        their jobs write into folders of the machines; None takes it back."""
        body = UserChange(None if role is None else member(Role, role), uid)
        return self._transport.call("PATCH", path_in("users", username), api.UserView, body)

    def delete_user(self, username: str) -> None:
        self._transport.command("DELETE", path_in("users", username))

    def set_password(self, username: str, password: str, old_password: str | None = None) -> None:
        """Users may change their own, with the old one, and admins everybody's. Forbidden if the old one is wrong."""
        body = api.NewPassword(password, old_password)
        self._transport.command("PUT", path_in("users", username) + "/password", body)

    def make_key(self, scope: KeyScope | str) -> Key:
        """What lets in one machine that joins, within an hour. For admins; shown this once."""
        return self._transport.call("POST", f"{API}/keys", Key, NewKey(member(KeyScope, scope)))

    def usage(self) -> Usage:
        """What this user has stored and waiting, and may have."""
        return self._transport.call("GET", f"{API}/usage", Usage)

    def usage_by_user(self) -> list[Usage]:
        """Of everybody, the largest first. For admins."""
        return self._transport.call("GET", f"{API}/usage/users", list[Usage])

    def clear(self, older_than: float, username: str | None = None) -> Cleared:
        """Remove jobs that ended more than `older_than` seconds ago, with payloads, results and logs. `username`:
        whose, for admins. TimeoutError is no end: what is left goes with the next call."""
        return self._transport.call("POST", f"{API}/usage/clear", Cleared, Clear(older_than, username))
