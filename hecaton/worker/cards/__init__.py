"""The cards of this machine.

- `discovery`: Which NVIDIA cards this machine has, as the driver's library (NVML) tells.
- `reading`: What a card does now, as the driver's library (NVML) tells: its memory and who holds it, use, temperature,
  power, and what is wrong with it.
- `watch`: Looks at the cards of this machine while the worker runs: which come, which fail, and what all of them do.
"""
