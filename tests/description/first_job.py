"""What somebody writes who has nothing but a generated Python client: log in, submit, wait, fetch. Run by the
environment of the tools; `python first_job.py FOLDER_OF_THE_CLIENT SERVER PASSWORD`."""

import sys

sys.path.insert(0, sys.argv[1])

from hecaton_api import AuthenticatedClient, Client  # type: ignore[import-not-found]
from hecaton_api.api.jobs import events, list_jobs, logs, result, show_job, submit  # type: ignore
from hecaton_api.api.login import login  # type: ignore[import-not-found]
from hecaton_api.models import (  # type: ignore[import-not-found]
    JobState,
    JobView,
    ListJobsState,
    Login,
    NewJob,
    Submitted,
    Token,
)

URL, PASSWORD = sys.argv[2:]

with Client(URL) as stranger:
    token = login.sync(client=stranger, body=Login(username="admin", password=PASSWORD))
assert isinstance(token, Token), token

with AuthenticatedClient(URL, token.token) as client:
    job = NewJob(image="team/app:1", input_={"prompt": "a cat"}, retries=1)
    submitted = submit.sync(client=client, body=job, idempotency_key="mine")
    assert isinstance(submitted, Submitted), submitted
    again = submit.sync(client=client, body=job, idempotency_key="mine")
    assert (again.id, again.duplicate) == (submitted.id, True), again
    view = show_job.sync(submitted.id, client=client, wait=30)
    assert isinstance(view, JobView), view
    assert (view.state, view.result) == (JobState.FINISHED, {"cats": 1}), view
    (shown,) = list_jobs.sync(client=client, state=ListJobsState.FINISHED, limit=10).jobs
    assert shown.id == submitted.id
    assert result.sync_detailed(submitted.id, client=client).content == b'{"cats":1}'
    assert logs.sync(submitted.id, client=client) == "meow\n"
    assert events.sync(submitted.id, client=client).splitlines()[-1].startswith('{"event":"end"')
    at_once = submit.sync(client=client, body=NewJob(image="team/app:1", text="again"), wait=30)
    assert isinstance(at_once, JobView), at_once
    assert at_once.state is JobState.FINISHED
print("all of it worked")
