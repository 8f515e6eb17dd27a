"""What the worker decides. Pure: events in, actions out.

- `departure`: The end of the worker: it drains or stops at once, and leaves when all is stopped and delivered.
- `ends`: How jobs end, with a result or without one, and what becomes of results until the server has them.
- `events`: What the worker's brain (`state`) hears and what it orders: events in, actions out.
- `from_server`: What the server says: jobs, what has become of them meanwhile, whether this worker is in service.
- `holdings`: What the worker holds: slots, containers, jobs, results, and the small moves that keep it consistent.
- `invariants`: What must hold in the worker's brain after every event.
- `limits`: Times that run out: of a start, of a job, of a container without work, and of what the server has heard.
- `places`: The places of this machine: those that it opens itself, and those that an assignment opens.
- `settings`: How a worker behaves.
- `slots`: The things that the worker's brain keeps in mind: held jobs, containers, slots, results to deliver.
- `state`: The worker's brain: events in, actions out.
- `steps`: The steps of a slot: a container is started, given its job, given the next ones ahead, stopped.
- `failures/`: How a job failed that its container did not answer, and what an answer says of its container.
"""
