"""How a container is spoken to that is a server: a job is a request, the answer its result.

- `door`: The door to a container whose own command is an HTTP server.
- `network`: Sockets in the network of a container, made from outside.
- `requests`: From a job's payload to the request that it is, and from the answer to the job's result.
"""
