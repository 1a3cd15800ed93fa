"""Files at rest: what lies in the folders of a spool, how it is read, and how it is laid down.

Nothing here starts a process or knows one; what a client wrote wrongly becomes a ``Rejection``.
"""
