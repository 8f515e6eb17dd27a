"""Images, and what is set for all of their jobs."""

from __future__ import annotations

from collections.abc import Mapping

from hecaton.client.nouns.calls import Calls, path_in
from hecaton.core.options import Defaults, DefaultsChange
from hecaton.wire import api
from hecaton.wire.api import API


class ImageCalls(Calls):
    """Part of `Client`."""

    def add_image(
        self, name: str, description: str = "", verify: bool = True, *, defaults: Defaults | None = None
    ) -> api.ImageView:
        """Register an image. `verify`: ask its registry whether it exists; `warning` of the answer says why that was
        not possible. `defaults`: options for its jobs that ask for nothing else (`startup_timeout`)."""
        new = api.NewImage(name, description, verify, defaults or {})
        return self._transport.call("POST", f"{API}/images", api.ImageView, new)

    def images(self) -> list[api.ImageView]:
        return self._transport.call("GET", f"{API}/images", list[api.ImageView])

    def image(self, name: str) -> api.ImageView:
        return self._transport.call("GET", path_in("images", name), api.ImageView)

    def update_image(
        self, name: str, *, env: Mapping[str, str] | None = None, description: str | None = None,
        refresh: bool = False, defaults: DefaultsChange | None = None,
    ) -> api.ImageView:  # fmt: skip
        """What is not given stays. `env` replaces the whole environment; `refresh` resolves the tag again; of
        `defaults`, options for jobs that ask for nothing else, None takes one back."""
        change = api.ImageChange(dict(env) if env is not None else None, description, refresh, defaults)
        return self._transport.call("PATCH", path_in("images", name), api.ImageView, change)

    def delete_image(self, name: str) -> None:
        self._transport.command("DELETE", path_in("images", name))
