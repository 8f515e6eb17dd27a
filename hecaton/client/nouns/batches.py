"""Many jobs as one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from hecaton.client import batches as batch_calls
from hecaton.client import submission
from hecaton.client.batches import BatchHandle, Progress
from hecaton.client.files.sending import with_folder
from hecaton.client.nouns.calls import Calls, member
from hecaton.core.doors import DEFAULT
from hecaton.core.errors import BadRequest
from hecaton.core.model import Mode
from hecaton.wire import api
from hecaton.wire.api import API


class BatchCalls(Calls):
    """Part of `Client`."""

    def submit_many(
        self,
        image: str | None,
        inputs: Iterable[Any],
        *,
        name: str = "",
        key: str | None = None,
        pause: bool = True,
        **options: Any,
    ) -> BatchHandle:
        """One durable batch with a job for each of `inputs` (JSON values), which are sent in chunks as they come.

        image: None is the server's default one.
        key: idempotency key: called again with the same one and the same inputs, it goes on where it was cut off.
        pause: hand out no more when the first 20 jobs to end have all failed alike.
        options: mode, file, args, tags, workdir and all options of `submit`.
        """
        items = (batch_calls.item_of(self._transport, value) for value in inputs)
        return self.submit_items(image, items, name=name, key=key, pause=pause, **options)

    def submit_items(
        self,
        image: str | None,
        items: Iterable[api.BatchItem],
        *,
        name: str = "",
        key: str | None = None,
        pause: bool = True,
        **options: Any,
    ) -> BatchHandle:
        """As `submit_many`, with payloads as they travel: text, base64 and uploads beside JSON."""
        head = self._batch_head(image, name, pause, options)
        return batch_calls.submit(self._transport, head, items, key)

    def item(self, path: str | os.PathLike[str]) -> api.BatchItem:
        """A payload file for `submit_items`."""
        return submission.with_payload(self._transport, api.BatchItem(), None, None, path)

    def item_of_bytes(self, data: bytes) -> api.BatchItem:
        """Bytes for `submit_items`, by the rule for payloads."""
        return submission.with_payload(self._transport, api.BatchItem(), None, data, None)

    def map(
        self,
        image: str | None,
        inputs: Iterable[Any],
        *,
        ordered: bool = True,
        window: int = 1000,
        return_exceptions: bool = False,
        progress: Progress | None = None,
        name: str = "",
        **options: Any,
    ) -> Iterator[Any]:
        """What the handler makes of each input, in input order or (`ordered=False`) as it comes.

        At most `window` inputs are on the way, sent or not yet taken from this iterator: inputs may be endless, and
        slow use of the results slows the inputs down. An item that failed raises JobFailed, or with
        `return_exceptions` is given as that error. When the iteration ends early, what is left is cancelled.

        progress: called with how many have ended and how many were submitted. options: as in `submit_many`.
        """
        if window < 1:
            raise BadRequest(f"window is {window}: at least 1 has to be on the way")
        head = self._batch_head(image, name, False, options)
        return batch_calls.map_inputs(
            self._transport, head, inputs,
            ordered=ordered, window=window, return_exceptions=return_exceptions, progress=progress,
        )  # fmt: skip

    def _batch_head(self, image: str | None, name: str, pause: bool, options: dict[str, Any]) -> api.NewBatch:
        mode, file = member(Mode, options.pop("mode", DEFAULT)), options.pop("file", None)
        tags, workdir = options.pop("tags", None), options.pop("workdir", None)
        request = submission.new_job(image, mode=mode, file=file, args=options.pop("args", ()), options=options)
        if file is not None:
            request = submission.with_file(self._transport, request, file)
        if workdir is not None:
            request = with_folder(self._transport, request, workdir)
        return batch_calls.head_of(submission.labelled(request, None, tags), name, pause=pause)

    def batch(self, batch: str | int) -> BatchHandle:
        """A batch by its id or short number. NotFound."""
        view = self._transport.call("GET", batch_calls.path_of(batch), api.BatchView)
        return BatchHandle(self._transport, view.id, view.index)

    def batches(self, limit: int = 50, before: int | None = None) -> list[api.BatchView]:
        """Newest first. `before`: index of the last one of the page before."""
        query = {"limit": limit, "before": before}
        return self._transport.call("GET", f"{API}/batches", list[api.BatchView], query=query)
