"""Where a job runs: what it needs of a machine, which place it gets, and for the rest: why not.

- `holds`: What a place holds of its machine: cards or parts of them, CPUs and memory.
- `matching`: Which waiting work goes to which slot, and for the rest: why not.
- `needs`: What a job needs of a machine, as people write it: cards, models, sizes, workers.
- `packing`: Which cards, bytes, CPUs and memory of a machine a job gets, and which idle places give way for it.
"""
