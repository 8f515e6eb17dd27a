"""Where jobs run: the slots of workers, what they hold, and which have room.

- `kinds`: Workers that no work in demand tells apart are of one kind: a decision looks at kinds, however much workers
  differ.
- `leases`: A worker's slots and the leases on them, as the server remembers them.
- `openings`: Which slots have room, kept in the orders in which the matching looks at them.
"""
