"""What each command of ``datarun`` does, one file a command; ``cli`` only reads the command line.

Each returns its exit status: 0, or 1 when what it looked at is wrong. A DatarunError ends it with its own.
"""
