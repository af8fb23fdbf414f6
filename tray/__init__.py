"""Pilotlight's desktop side: the tray icon, its menu and the command line."""
