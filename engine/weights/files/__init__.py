"""Weights files: found, mapped, converted, kept, and told apart when they change."""
