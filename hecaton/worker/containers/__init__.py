"""The containers of this process, from image to removal.

- `container`: One container from its image to its removal: folder, door, start, jobs, end.
- `kills`: Whom the kernel has killed for memory, as it says in its own log.
- `live_containers`: The containers of this process, and what is left of those that are gone.
- `plan`: What one container is to be: its files, its folder and door, and what the runtime is asked for.
"""
