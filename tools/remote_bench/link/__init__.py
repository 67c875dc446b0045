"""What passes between here and a board: the connection to its keeper, and the code that travels.

For run; imports host, and takes agent and keeper as text.
"""
