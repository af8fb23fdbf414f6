"""The sources of models: references, the hub, folders, and the files in them."""
