"""Files that go along with jobs, and that jobs have made.

- `checkpoints`: The state of jobs that outlives an attempt: a worker tells of a complete checkpoint, and whoever has
  the job next fetches it.
- `files_api`: HTTP for files that jobs have made: parse, one use case, answer.
- `folders`: Folders that users send along with jobs: what of one is missing, its small files together, and all of it
  for the worker that holds the job.
- `folders_api`: HTTP for folders that go along with jobs: parse, one use case, answer.
- `kept`: The files that attempts have made: workers tell of them, people list and fetch them.
"""
