"""The pure heart: values, facts, the ledger they add up to, and the plan. Standard library only.

Nothing here reads a clock, a file, the environment or a random number, and nothing logs.
"""
