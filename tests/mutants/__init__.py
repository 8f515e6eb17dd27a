"""Faults put into the safety net itself: does the suite notice? `python -m tests.mutants --help`.

A mutant is one small change of Hecaton's source that takes away something that docs/reliability.md relies on, and names
the tests that must fail then. It lives in a temporary copy; the tree is never touched.

    mutant        what a mutant is
    of_blame, of_client, of_places, of_store, of_server, of_worker    the mutants; `catalogue`: all of them
    laboratory    the copies, and running tests against them
"""
