"""What is asked of devices: which one computes, what is free there, how much torch may take, and what it lacks."""

from engine.weights.devices.allocator import empty_cache, limit
from engine.weights.devices.choice import Choice, choose
from engine.weights.devices.device_memory import Allocated, DeviceMemory, allocated, context, memory
from engine.weights.devices.loss import lost_device
from engine.weights.devices.out_of_memory import out_of_memory_on

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
