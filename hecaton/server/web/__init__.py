"""HTTP: from ASGI to a use case, and the answer back.

- `api`: HTTP for people, and the workers' transfers beside their channel: the table of routes.
- `batch_api`: HTTP for batches: parse, one use case, answer.
- `gate`: Who is let in to which endpoint.
- `handshake`: TLS and plain HTTP on one port, begun by connections that have their seats already. The first byte tells
  which.
- `heads`: How much one may say before a request is understood: the head of a request, and all that is no content in it.
- `http`: The plumbing between ASGI and handlers: one declared `Route` per endpoint, one place for access, bodies and
  errors.
- `openapi`: The API's description (OpenAPI 3.1), made from the routes and the types of `wire.api`: it cannot go out of
  date.
- `protocol`: uvicorn's protocols as this server needs them.
- `queries`: What may stand behind the question mark of an address: declared with its route, read by it, described by
  it.
- `routing`: All endpoints as one ASGI application: which of them a request means.
- `transfer`: Bodies too big for a message: uploads into and downloads out of the blob store, streamed, never whole in
  memory.
- `usage_api`: HTTP for what is stored and used: parse, one use case, answer.
"""
