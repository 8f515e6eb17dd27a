"""My work: `hecaton job` and `hecaton batch`.

- `batch`: `hecaton batch`: list, show, wait, results, retry, cancel, resume.
- `batch_results`: Results of a batch as JSON lines in input order, into a file that is continued where it stopped.
- `each`: The payloads of `hecaton job new --each`: a file with one JSON value per line, or a glob of files.
- `follow`: Stay with a job until it ends, hand over its result, and leave with the exit code that tells how it ended.
- `job`: `hecaton job`: list, show, wait, logs, cancel, retry.
- `live`: Stays with a job until it ends: its log, what its worker is doing, why it waits.
- `new`: `hecaton job new`: one job, or with --each a batch, from what is typed; what will not go well is said at once.
- `notes`: What is likely to go wrong with a job, seen before it is submitted.
- `options`: The flags by which options of a job are asked for, made from `core.options`.
- `run`: `hecaton run`: a file, or a command, as a job that is waited for as if it ran here: its output, its exit code.
- `text`: How one job is shown: a row, all details, why it waits, why it failed, its result.
"""
