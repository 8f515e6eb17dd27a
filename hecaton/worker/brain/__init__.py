"""What the worker decides. Pure: events in, actions out.

- `events`: What the worker's brain (`state`) hears and what it orders: events in, actions out.
- `failures`: The words for a container that ended under its job or before it.
- `holding`: What the worker holds (slots, containers, jobs, results) and the moves on it.
- `invariants`: What must hold in the worker's brain after every event.
- `slots`: The things that the worker's brain keeps in mind: held jobs, containers, slots, results to deliver.
- `state`: The worker's brain: events in, actions out.
"""
