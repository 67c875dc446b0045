"""From what the agent wrote on a board (result) to figures, a verdict and a report, all typed.

For run, report and cli; imports no other room, and shows nothing.
"""
