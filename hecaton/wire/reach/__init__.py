"""How a server is reached: where it is, by which way, and whom to trust there.

- `address`: The address of a server as people write it, and which scheme to speak there.
- `proxies`: Which proxy a connection to a server goes through: one rule for client, command line and worker.
- `tls`: Whom a connection trusts, and what to tell people when it does not.
"""
