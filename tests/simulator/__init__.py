"""A deterministic simulator: the real server, the real store (SQLite in memory) and real worker brains in one process.

Clock, network, disks, containers and crashes are simulated from one seed. `python -m tests.simulator --help`.

    loop       virtual time; processes that can be killed and paused
    plan       a seed -> what the world is made of, what is submitted, what breaks
    disk       the server's database: commit times, full disks, kills between commit and reply; tells the oracle all
    network    connections that lose, delay, stall and break
    service    the server's process: composition, start, crash, pause
    engine     containers and images of one machine
    machine    one worker: process, brain, journal
    logs       what jobs print, by the worker's own exchange and outbox
    link       a worker's end of its connection
    judge      the last look: do all sides agree, is everything explained?
    trace      what is said, in short words
    clients    who submits, cancels, waits and retries
    faults     what breaks when
    oracle     what was promised, what happened, and what must hold
    world      all of it together
"""
