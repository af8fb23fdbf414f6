"""The icon: the only importer of pystray."""
