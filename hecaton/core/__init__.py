"""What a job is and what may happen to it. Pure: no I/O, no clock, no randomness; `now` is an argument.

- `batches`: Batches: many jobs of one image that are submitted, watched, stopped and repeated as one.
- `content`: Whether bytes are what they are said to be, by one rule at every size, and where the first fault is.
- `doors`: The ways of speaking to a container (`Mode`), one row each: what every other part may know of a way without
  knowing which one it is.
- `errors`: One tree of errors, raised where the fault is known; `wire.errors` has the table of codes and HTTP statuses.
- `image_versions`: Which versions of an image the machines have under one name, for people.
- `lifecycle`: What may happen to a job: ONE table of moves, and the rule that says where a job goes when an attempt
  ends.
- `model`: The nouns: jobs, attempts, images, users, workers, and the words for their states.
- `option_kinds`: What an option of a job is: what its values look like, what they change, and who carries it out.
- `options`: What a user may ask of a job besides payload and file, each option once.
- `references`: Names of container images, by the grammar of the distribution project (`reference.go`), with Docker
  Hub's short forms.
- `scripts`: Files that are run as programs: which ones can be, by what, and with which line ends.
- `shown`: Messages as they are printed in Python: what they hold, and nothing that says nothing.
- `files/`: Folders and files of jobs: what they are called and what they hold.
- `placement/`: Where a job runs: what it needs of a machine, which place it gets, and for the rest: why not.
"""
