"""fastseg-run: its options, the inputs that it runs, and what it says of bundles and devices.

Nobody imports it; it may import every other room, and does so after --help alone.
"""
