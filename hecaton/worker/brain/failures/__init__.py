"""How a job failed that its container did not answer, and what an answer says of its container.

- `shortage`: The words for jobs that ran out of memory, of their own or of the machine's.
- `sticky`: Errors that stay with a process.
- `words`: The words for a job that ended without an answer of its container.
"""
