"""The cards of this machine.

- `discovery`: Which NVIDIA cards this machine has, as the driver's library (NVML) tells.
- `watch`: Whether the cards of this machine still answer, as the driver's library (NVML) tells.
"""
