"""HTTP for people, and the workers' transfers beside their channel: the table of routes. Parse, one use case,
answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import msgspec

from hecaton import __version__
from hecaton.core.errors import BadRequest, HecatonError, NotFound, Unavailable
from hecaton.core.files.kept import PIECE
from hecaton.core.model import JobId, User, WorkerRecord
from hecaton.server.accounts.auth import Caller, Tokens
from hecaton.server.accounts.directory import Directory
from hecaton.server.accounts.keys import Keys
from hecaton.server.accounts.logins import Logins
from hecaton.server.accounts.permissions import Action
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.leases import Member
from hecaton.server.fleet.workers import Workers
from hecaton.server.jobs.jobs import Jobs
from hecaton.server.jobs.machines import machine_view
from hecaton.server.jobs.requests import Sought, labels_of, request_digest
from hecaton.server.jobs.views import Seen, worker_view
from hecaton.server.resources import Resources
from hecaton.server.web.http import Call, Route, Stream, decode
from hecaton.server.web.queries import ATTEMPT, BEFORE, FOLLOW, LIMIT, NAME, OFFSET, STATE, TAG, WAIT, WHOSE
from hecaton.server.web.transfer import (
    BYTES,
    CONTENT,
    LINES,
    TEXT,
    announced_size,
    receive_blob,
    require_sha256,
    send_blob,
    send_body,
)
from hecaton.store.port import Store
from hecaton.wire import api
from hecaton.wire.api import Enrolment, Key, KeyLogin, NewKey, Retry, UserChange

MAX_KEY = 128
_KEY = api.IDEMPOTENCY_HEADER.lower().encode()

PASSWORD_BODY_LIMIT = 4 * 1024
"""Of a request that holds a name and a password."""


class Api:
    """The handlers. Everything they need is handed in by `app`. On the loop.

    A handler is called for a caller whom the gate let in for the route's action, answers once, and keeps nothing from
    one call to the next: what lasts is with the parts."""

    def __init__(
        self,
        *,
        resources: Resources,
        directory: Directory,
        logins: Logins,
        tokens: Tokens,
        fleet: Fleet,
        workers: Workers,
        jobs: Jobs,
    ) -> None:
        self._resources = resources
        self._settings, self._server_id, self._clock = resources.settings, resources.server_id, resources.clock
        self._database, self._blobs = resources.database, resources.blobs
        self._directory, self._logins, self._tokens = directory, logins, tokens
        self._keys = Keys(resources, logins)
        self._fleet, self._workers, self._jobs, self._budget = fleet, workers, jobs, jobs.budget

    # -- server and users ----------------------------------------------------------------------

    async def health(self, call: Call) -> api.Health:
        await self._database.read(lambda store: store.meta("server_id"))
        return api.Health("ok", __version__, self._server_id, self._clock.now())

    async def about(self, call: Call) -> api.About:
        return api.About(__version__)

    async def login(self, call: Call) -> api.Token:
        request: api.Login = decode(await call.body(PASSWORD_BODY_LIMIT), api.Login)
        found = self._directory.user_by_name(request.username)
        call.claims(found)
        check = self._logins.check(found, request.username, request.password, call.address)
        return self._token(await call.unless_gone(check))

    def _token(self, user: User) -> api.Token:
        token, expires_at = self._tokens.issue(user)
        return api.Token(token, user.name, user.role, expires_at)

    async def make_key(self, call: Call) -> Key:
        request: NewKey = decode(await call.body(), NewKey)
        call.target = request.scope
        return await self._keys.make(call.caller, request.scope)

    async def login_with_key(self, call: Call) -> api.Token:
        request: KeyLogin = decode(await call.body(PASSWORD_BODY_LIMIT), KeyLogin)
        user = await self._keys.log_in(request.key, call.address)
        call.claims(user)
        return self._token(user)

    async def enrol_worker(self, call: Call) -> api.WorkerCredentials:
        request: Enrolment = decode(await call.body(PASSWORD_BODY_LIMIT), Enrolment)
        call.target = request.name
        credentials, maker = await self._keys.enrol(request.key, request.name, call.address)
        call.claims(maker)
        return credentials

    async def server(self, call: Call) -> api.ServerInfo:
        caller, settings = call.caller, self._settings
        return api.ServerInfo(
            __version__, caller.name, caller.role, settings.max_payload, settings.max_result, settings.max_queued,
            settings.keep_results, settings.keep_logs, settings.keep_jobs, settings.default_image,
        )  # fmt: skip

    async def list_users(self, call: Call) -> list[api.UserView]:
        return self._directory.users()

    async def create_user(self, call: Call) -> api.UserView:
        request: api.NewUser = decode(await call.body(), api.NewUser)
        call.target = request.username
        return await self._directory.create_user(request, call.caller)

    async def update_user(self, call: Call) -> api.UserView:
        change: UserChange = decode(await call.body(), UserChange)
        call.target = f"{call.params['name']}: {change}"
        return await self._directory.change_user(call.params["name"], change)

    async def delete_user(self, call: Call) -> None:
        await self._directory.delete_user(call.caller, call.params["name"])

    async def set_password(self, call: Call) -> None:
        request: api.NewPassword = decode(await call.body(PASSWORD_BODY_LIMIT), api.NewPassword)
        name, address = call.params["name"], call.address
        known = self._directory.require_settable(call.caller, name)
        if known is not None and known.id == call.caller.user_id:
            await call.unless_gone(self._logins.prove(known, request.old_password, address))
        await self._directory.set_password(call.caller, name, request.password)

    # -- images --------------------------------------------------------------------------------

    async def list_images(self, call: Call) -> list[api.ImageView]:
        return self._directory.images(call.caller)

    async def add_image(self, call: Call) -> api.ImageView:
        request: api.NewImage = decode(await call.body(), api.NewImage)
        call.target = request.name
        return await self._directory.add_image(request, call.caller)

    async def show_image(self, call: Call) -> api.ImageView:
        return await self._directory.show_image(call.caller, call.params["name"])

    async def update_image(self, call: Call) -> api.ImageView:
        change: api.ImageChange = decode(await call.body(), api.ImageChange)
        return await self._directory.update_image(call.params["name"], change, call.caller)

    async def delete_image(self, call: Call) -> None:
        await self._directory.delete_image(call.params["name"], call.caller)

    # -- workers -------------------------------------------------------------------------------

    async def list_workers(self, call: Call) -> list[api.WorkerView]:
        """Everybody sees which slots are busy; which job and image is there, who may see them."""
        records = await self._directory.workers()
        seen = None if call.caller.may(Action.SEE_JOBS) else await self._seen_on_slots(call.caller)
        return [self._worker_view(record, seen) for record in records]

    async def show_worker(self, call: Call) -> api.MachineView:
        record = await self._directory.worker(call.params["name"])
        seen = None if call.caller.may(Action.SEE_JOBS) else await self._seen_on_slots(call.caller)
        return await machine_view(self._resources, record, *self._member(record), seen)

    async def _seen_on_slots(self, caller: Caller) -> Seen:
        leases = [lease for member in self._fleet.members.values() for lease in member.leases()]
        own = frozenset(lease.ref.job for lease in leases if lease.owner == caller.user_id)
        own |= await self._jobs.own_among(caller, [lease.ref.job for lease in leases if lease.owner is None])
        return Seen(own, frozenset(image.name for image in self._directory.images(caller)))

    async def add_worker(self, call: Call) -> api.WorkerCredentials:
        request: api.NewWorker = decode(await call.body(), api.NewWorker)
        call.target = request.name
        return await self._directory.register_worker(call.caller, request.name)

    async def remove_worker(self, call: Call) -> None:
        await self._workers.remove(await self._directory.remove_worker(call.params["name"]))

    async def drain_worker(self, call: Call) -> api.WorkerView:
        return self._worker_view(await self._workers.take_out_of_service(call.params["name"]))

    async def undrain_worker(self, call: Call) -> api.WorkerView:
        record = await self._workers.put_into_service(call.params["name"])
        return self._worker_view(record)

    def _worker_view(self, record: WorkerRecord, seen: Seen | None = None) -> api.WorkerView:
        return worker_view(record, *self._member(record), seen)

    def _member(self, record: WorkerRecord) -> tuple[Member | None, float]:
        """As it is known now, and when it was heard from last."""
        member = self._fleet.members.get(record.id)
        return member, member.last_contact if member and member.link else record.last_seen

    # -- jobs ----------------------------------------------------------------------------------

    async def submit(self, call: Call) -> api.Submitted | api.JobView:
        # hot: benchmarks/latency.py
        body = await call.body()
        request: api.NewJob = decode(body, api.NewJob)
        wait = call.query["wait"]
        key = key_of(call)
        digest = request_digest(body) if key is not None else b""
        if wait is not None and call.reservation is None:
            return await self._jobs.submit_and_wait(call.caller, request, key, digest, wait)
        submitted = await self._jobs.submit(call.caller, request, key, digest)
        if wait is not None:
            del body, request  # a large one is not held for as long
            call.release()
            return await self._jobs.wait(call.caller, submitted.id, wait)
        if submitted.duplicate:
            call.status = 200
        return submitted

    async def follow_new(self, call: Call) -> Stream:
        # hot: benchmarks/sdk.py
        body = await call.body()
        request: api.NewJob = decode(body, api.NewJob)
        wait, is_large, digest = call.query["wait"], call.reservation is not None, request_digest(body)
        answers = self._jobs.submit_and_follow(call.caller, request, key_of(call), digest, wait, is_large)
        first = await anext(answers)  # what is refused is an answer of its own
        if isinstance(first, api.Submitted) and first.duplicate:
            call.status = 200
        del body, request
        call.release()
        return Stream(_lines(first, answers), LINES)

    async def list_jobs(self, call: Call) -> api.JobPage:
        query = call.query
        sought = Sought(query["whose"], query["state"], labels_of(query["name"], query["tag"]))
        return await self._jobs.list(call.caller, sought, query["before"], query["limit"])

    async def show_job(self, call: Call) -> api.JobView:
        wait = call.query["wait"]
        if wait:
            return await self._jobs.wait(call.caller, call.params["job"], wait)
        return await self._jobs.show(call.caller, call.params["job"])

    async def payload(self, call: Call) -> Stream:
        return send_body(self._blobs, await self._jobs.payload(call.caller, call.params["job"]))

    async def result(self, call: Call) -> Stream:
        return send_body(self._blobs, await self._jobs.result(call.caller, call.params["job"]))

    async def cancel(self, call: Call) -> api.JobView:
        return await self._jobs.cancel(call.caller, call.params["job"])

    async def retry(self, call: Call) -> api.Submitted:
        submitted = await self._jobs.retry(call.caller, call.params["job"], key_of(call), await call.body())
        if submitted.duplicate:
            call.status = 200
        return submitted

    async def logs(self, call: Call) -> Stream:
        attempt, offset = call.query["attempt"], call.query["offset"]
        return Stream(await self._jobs.logs(call.caller, call.params["job"], attempt, offset), TEXT, endless=True)

    async def events(self, call: Call) -> Stream:
        events = await self._jobs.events(call.caller, call.params["job"], call.query["offset"])
        lines = (b"\n" if event is None else _line(event) async for event in events)
        return Stream(lines, LINES, endless=True)

    # -- transfers -----------------------------------------------------------------------------

    async def put_blob(self, call: Call) -> None:
        sha256 = require_sha256(call.params["sha256"])
        limit = self._settings.max_payload
        with self._budget.receiving(call.caller, announced_size(call, limit)):
            size = await receive_blob(call, self._blobs, sha256, limit)
            await self._enter_blob(sha256, call.caller.user_id, size)

    async def has_blob(self, call: Call) -> None:
        sha256 = require_sha256(call.params["sha256"])
        owner = call.caller.user_id
        known = await self._database.read(lambda store: store.has_blob(sha256, owner))
        if not known or self._blobs.path(sha256) is None:
            raise NotFound(f"you have uploaded nothing with SHA-256 {sha256}")

    async def worker_get(self, call: Call) -> Stream:
        """A payload, a handler file or the manifest of a folder, for the worker that holds the job."""
        job_id, sha256 = JobId(call.params["job"]), require_sha256(call.params["sha256"])
        self._fleet.require_holder(call.worker.id, job_id)
        job = await self._database.read(lambda store: store.job(job_id))
        if job is None or sha256 not in (job.payload_blob, job.spec.file, job.spec.workdir):
            raise NotFound(f"job {job_id} has no such content")
        return send_blob(self._blobs, sha256)

    async def worker_put(self, call: Call) -> None:
        """A result too large for the channel, or bytes of files that the job has made: its owner's, who names them."""
        job_id, sha256 = JobId(call.params["job"]), require_sha256(call.params["sha256"])
        self._fleet.require_holder(call.worker.id, job_id)
        limit = max(self._settings.max_result, PIECE)
        self._budget.require_disk_for_results(announced_size(call, limit))
        size = await receive_blob(call, self._blobs, sha256, limit)
        job = await self._database.read(lambda store: store.job(job_id))
        if job is not None:
            await self._enter_blob(sha256, job.owner_id, size)

    async def _enter_blob(self, sha256: str, owner_id: int, size: int) -> None:
        now = self._clock.now()

        def enter(store: Store) -> None:
            if self._blobs.path(sha256) is None:
                raise Unavailable("the upload was cleaned away as an old, unused one in that moment", "Send it again.")
            store.add_blob(sha256, owner_id, size, now)

        await self._database.write(enter)

    def routes(self) -> list[Route]:
        """Every endpoint but the channel and /openapi.json. Submission first: the router tries them in this order."""
        submit, see, cancel, retry = Action.SUBMIT, Action.SEE_JOBS, Action.CANCEL_JOBS, Action.RETRY_JOBS
        upload, move, enrol, change = Action.UPLOAD, Action.MOVE_CONTENT, Action.ENROL_WORKERS, Action.SET_PASSWORD
        see_images, images, users = Action.SEE_IMAGES, Action.REGISTER_IMAGES, Action.MANAGE_USERS
        own_images, many_images = Action.CHANGE_IMAGES, list[api.ImageView]
        login, join, server, know = Action.LOG_IN, Action.JOIN, Action.SEE_SERVER, Action.SEE_API
        see_workers, workers, made = Action.SEE_WORKERS, Action.MANAGE_WORKERS, api.WorkerCredentials
        job, blob, image = "/v1/jobs/{job}", "/v1/blobs/{sha256}", "/v1/images/{name:path}"
        account, worker = "/v1/users/{name}", "/v1/workers/{name}"
        content = "/v1/worker/jobs/{job}/blobs/{sha256}"
        return [
            Route("POST", "/v1/jobs", submit, self.submit, "Submit a job; ?wait= until it ends", api.NewJob,
                  (api.JobView, api.Submitted), 201, (WAIT,), keyed=True),
            Route("POST", "/v1/jobs/followed", submit, self.follow_new, "Submit a job: a line when it is stored, one at"
                  " its end", api.NewJob, (api.Submitted, api.JobView), 201, (FOLLOW,), keyed=True, media=(LINES,)),
            Route("GET", job, see, self.show_job, "Everything about a job; ?wait= until it ends", None, api.JobView,
                  query=(WAIT,)),
            Route("GET", "/v1/jobs", see, self.list_jobs, "Jobs, newest first", None, api.JobPage,
                  query=(WHOSE, STATE, LIMIT, BEFORE, NAME, TAG)),
            Route("GET", job + "/payload", see, self.payload, "The payload's bytes", media=CONTENT),
            Route("GET", job + "/result", see, self.result, "The result's bytes", media=CONTENT),
            Route("GET", job + "/logs", see, self.logs, "What the handler printed; until the job ends", media=(TEXT,),
                  query=(ATTEMPT, OFFSET)),
            Route("GET", job + "/events", see, self.events, "What happens to it, live", None, api.JobEvent,
                  query=(OFFSET,), media=(LINES,)),
            Route("POST", job + "/cancel", cancel, self.cancel, "Stop a job", None, api.JobView),
            Route("POST", job + "/retry", retry, self.retry, "Run it again as a new job", Retry, api.Submitted, 201,
                  keyed=True),
            Route("PUT", blob, upload, self.put_blob, "Upload a payload or a handler file", status=201, upload=True),
            Route("HEAD", blob, upload, self.has_blob, "Have I uploaded this?"),
            Route("GET", content, move, self.worker_get, "Content of a job that the worker holds", media=(BYTES,)),
            Route("PUT", content, move, self.worker_put, "A large result", status=201, upload=True),
            Route("GET", "/", know, self.about, "What this is", None, api.About),
            Route("POST", "/v1/login", login, self.login, "A token for name and password", api.Login, api.Token),
            Route("POST", "/v1/login/key", login, self.login_with_key, "A token for a key", KeyLogin, api.Token),
            Route("POST", "/v1/enrol", join, self.enrol_worker, "Register a worker with a key", Enrolment, made, 201),
            Route("POST", "/v1/keys", Action.MAKE_KEYS, self.make_key, "A key for a line to join", NewKey, Key, 201),
            Route("GET", "/v1/server", server, self.server, "Who am I, and which limits hold", None, api.ServerInfo),
            Route("GET", "/healthz", know, self.health, "Does the server work", None, api.Health),
            Route("GET", "/v1/users", users, self.list_users, "All users", None, list[api.UserView]),
            Route("POST", "/v1/users", users, self.create_user, "Create a user", api.NewUser, api.UserView, 201),
            Route("PATCH", account, users, self.update_user, "Change a user", UserChange, api.UserView),
            Route("DELETE", account, users, self.delete_user, "Delete a user", status=204),
            Route("PUT", account + "/password", change, self.set_password, "New password", api.NewPassword, status=204),
            Route("GET", "/v1/images", see_images, self.list_images, "All images, one's own too", None, many_images),
            Route("POST", "/v1/images", images, self.add_image, "Register an image", api.NewImage, api.ImageView, 201),
            Route("GET", image, see_images, self.show_image, "One image", None, api.ImageView),
            Route("PATCH", image, own_images, self.update_image, "Change an image", api.ImageChange, api.ImageView),
            Route("DELETE", image, own_images, self.delete_image, "Remove an image", status=204),
            Route("GET", "/v1/workers", see_workers, self.list_workers, "All workers", None, list[api.WorkerView]),
            Route("POST", "/v1/workers", enrol, self.add_worker, "Register a worker", api.NewWorker, made, 201),
            Route("GET", worker, see_workers, self.show_worker, "A worker and its cards", None, api.MachineView),
            Route("DELETE", worker, workers, self.remove_worker, "Remove a worker", status=204),
            Route("POST", worker + "/drain", workers, self.drain_worker, "Give it nothing new", None, api.WorkerView),
            Route("POST", worker + "/undrain", workers, self.undrain_worker, "Use it again", None, api.WorkerView),
        ]  # fmt: skip


def key_of(call: Call) -> str | None:
    key = call.header(_KEY)
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        raise BadRequest(f"the {api.IDEMPOTENCY_HEADER} has {len(key)} characters: expected 1 to {MAX_KEY}, printable")
    return key


async def _lines(
    first: api.Submitted | api.JobView, others: AsyncGenerator[api.Submitted | api.JobView]
) -> AsyncGenerator[bytes]:
    yield _line(first)
    async with aclosing(others):
        with suppress(HecatonError):  # the caller's rights have ended: he is told when he asks for the job
            async for one in others:
                yield _line(one)


def _line(value: api.JobEvent | api.Submitted | api.JobView) -> bytes:
    """One line. Payloads and results stand in it as they came, and may hold line breaks: in JSON only ever between
    tokens, where a blank means the same."""
    return msgspec.json.encode(value).replace(b"\n", b" ") + b"\n"
