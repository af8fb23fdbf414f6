"""Weights files: matched to a module, mapped, converted, stored, and checked for changes."""
