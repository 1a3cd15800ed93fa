"""The whole program as a process: folders in, folders out."""
