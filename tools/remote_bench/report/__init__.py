"""What a person sees of reports: on the terminal, as a page, in the bundle, and the exit code.

For cli; imports host and analysis.
"""
