"""What runs containers.

- `docker`: Runs containers on a Docker engine: the worker's default runtime.
- `docker_config`: What the Docker runtime asks of its engine for one container.
- `docker_engine`: The Docker runtime's connection to its engine: every call has a deadline; faults come in two kinds.
- `docker_faults`: What a refusal of the Docker engine means.
- `docker_images`: Has images at hand for the Docker runtime: finds them in the engine by digest or tag, pulls what is
  missing.
- `docker_logins`: With which login this machine asks a registry: that of `docker login`, from Docker's own
  configuration, or from the credential helper that it names, as Docker asks it.
- `docker_names`: Hears from the Docker engine that names of images may mean others than before.
- `port`: The port to what runs containers.
- `process`: Runs named handler files as child processes: for development and machines without a container engine.
- `python_mount`: The folder that appears read-only at PYTHON_TARGET in every container, and puts one name on its
  Python's path: `hecaton`, for images that lack it or have one older than 2.0.
- `starting`: What every runtime does alike when it starts a container: its environment, its command, its limits.
- `table`: Which runtimes a worker can be told to use: one row each.
"""
