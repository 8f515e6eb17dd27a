"""From requests of people and workers to the store and back. What is put together here lives in the rooms below.

- `app`: The root of everything: settings -> files, composition, routes -> one ASGI application, served by uvicorn.
- `bodies`: The memory that bodies of requests may have while they arrive and are looked at: so much in all, a part of
  it for one user or worker.
- `clock`: The server's clock: wall time at the start, carried on by the monotonic clock.
- `composition`: What the server is, but for HTTP and files: memory and use cases over a store, put together in one
  place.
- `connections`: Who may be connected: so many in all, a share of them from one address or for one user, and some room
  that is for workers and admins.
- `duties`: What the server does by the clock: leases, queue times, ends of quarantines, a fresh count of what waits,
  results, logs and jobs past their age, uploads that nobody used.
- `forwarded`: Whose request a proxy has passed on, where the proxy is one that is believed (`--trusted-proxy`).
- `hub`: Who waits for what: events of jobs and batches, published in memory to the requests that watch them.
- `private_files`: Files with a secret in them: nobody but their owner may read or change them.
- `resources`: What everything in the server stands on.
- `settings`: Flags and environment of the server, read once into one frozen value.
- `tasks`: Work that is started and that nobody awaits.
- `accounts/`: Who may come in, and what an admin has registered.
- `files/`: Files that jobs have made.
- `fleet/`: The workers' side.
- `jobs/`: The people's side.
- `metrics/`: What `/metrics` says, in Prometheus' format, on a port of its own.
- `web/`: HTTP.
"""
