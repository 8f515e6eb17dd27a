"""What images are on the workers' machines, and which cannot be had there.

- `news`: What workers say about images.
- `pulls`: Which image cannot be had on which machine, until when, and whether that is reason enough to give a job up.
- `versions`: What the name of an image means on the workers' machines and to their logins: asked when somebody wants to
  know.
"""
