"""Every message that crosses HTTP or the workers' connection, once, for both ends.

- `address`: The address of a server as people write it, and which scheme to speak there.
- `api`: HTTP bodies of the people's API under /v1, for server and client.
- `bounds`: What a message between server and worker may hold at most.
- `channel`: The whole protocol between server and worker.
- `decoding`: JSON into the types of messages, from any thread.
- `errors`: One table: error class <-> code <-> HTTP status.
- `frames`: What both sides of the channel say, in frames that the other side reads.
- `home`: Where Hecaton keeps its state on this machine: one rule for server, client and worker.
- `proxies`: Which proxy a connection to a server goes through: one rule for client, command line and worker.
- `retries`: HTTP bodies of what is tried again: what is to be another than it was.
- `tls`: Whom a connection trusts, and what to tell people when it does not.
- `usage`: HTTP bodies of the people's API about users: what they become, and what they have stored and use.
"""
