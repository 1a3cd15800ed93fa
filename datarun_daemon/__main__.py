"""``python -m datarun_daemon`` is ``datarun``."""

from datarun_daemon.cli import main

main()
