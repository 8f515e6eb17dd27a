"""Every message that crosses HTTP or the workers' connection, once, for both ends.

- `api/`: HTTP bodies of the people's API under /v1.
- `bounds`: What a message between server and worker may hold at most.
- `bundles`: Small files together in one body, to the server and from it: of each its sha256, its size, and its bytes.
- `carried`: What messages between server and worker carry: assignments, places, cards, outcomes.
- `channel`: The whole protocol between server and worker.
- `decoding`: JSON into the types of messages, from any thread.
- `errors`: One table: error class <-> code <-> HTTP status.
- `frames`: What both sides of the channel say, in frames that the other side reads.
- `home`: Where Hecaton keeps its state on this machine: one rule for server, client and worker.
- `reach/`: How a server is reached: where it is, by which way, and whom to trust there.
"""
