"""Runs the jobs that its server gives it. Put together here; decides in `brain`.

All on one event loop. What of it runs in a thread says so.

- `adoption`: A worker that starts anew: goes on with the containers that an earlier process of it left, and clears away
  the rest.
- `agent`: Carries out what the worker's brain (`state`) orders, and tells it what happens.
- `app`: Puts a worker together and runs it until it is told to stop.
- `end_lines`: Says in the worker's own log how jobs ended.
- `image_watch`: What names of images mean on this machine: keeps warm containers from going on with an image that their
  name has left, answers the server's questions, and says when something is here that could not be had before.
- `hearing`: What comes over the link becomes events; what the worker says of itself when it connects.
- `capacity`: How much of this machine its jobs may have, all together.
- `control`: The control socket in a worker's folder: whoever may enter that folder asks the worker's process to leave
  what runs to its next process, and waits until it has.
- `endings`: What is meant by a SIGTERM: stop, or leave what runs to the next process of this worker, or be gone with
  the machine.
- `no_overlap`: No-overlap jobs (`--no-overlap`) on this machine: until when they may run, and the `warden` that ends
  them then.
- `site`: What all containers of a worker share.
- `warden`: The warden of a worker: a second, tiny process in a session of its own, which ends the containers of
  no-overlap jobs when their lease has run out, also while the worker's own process is dead or stopped.
- `brain/`: What the worker decides.
- `cards/`: The cards of this machine.
- `containers/`: The containers of this process, from image to removal.
- `doors/`: How a running container is spoken to.
- `files/`: Files of jobs on the worker's disk.
- `link/`: What passes between the worker and its server.
- `memory/`: What the worker keeps on disk.
- `runtimes/`: What runs containers.
"""
