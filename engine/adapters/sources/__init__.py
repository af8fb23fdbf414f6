"""Where models come from: references, the hub, folders, and what stands in them."""
