"""What is promised, kept under real faults: processes, sockets, disks and a Docker engine that are killed, paused and
cut.

`ledger.py` is the oracle; `FULL=1 pytest tests/faults` takes the full figures, without FULL they are small."""
