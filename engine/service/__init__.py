"""The program: opened in order, closed in reverse."""
