"""The devices: which one computes, the memory of each, and readings of the whole computer."""

from engine.devices.allocator import empty_cache, limit
from engine.devices.choice import Choice, choose
from engine.devices.loss import lost_device
from engine.devices.memory import Allocated, DeviceMemory, allocated, context, memory
from engine.devices.out_of_memory import out_of_memory_on

__all__ = [
    "Allocated",
    "Choice",
    "DeviceMemory",
    "allocated",
    "choose",
    "context",
    "empty_cache",
    "limit",
    "lost_device",
    "memory",
    "out_of_memory_on",
]
