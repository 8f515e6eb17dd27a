"""Files that jobs have made.

- `files_api`: HTTP for files that jobs have made: parse, one use case, answer.
- `kept`: The files that attempts have made: workers tell of them, people list and fetch them.
"""
