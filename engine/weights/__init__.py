"""Where parameters live and how their memory goes back to the system."""
