"""What a client imports: packs bundles, checks them as the daemon would, and drops them into a spool.

Works on plain folders; needs no daemon to be running, and neither numpy nor pandas.
"""
