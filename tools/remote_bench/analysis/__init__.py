"""From what the agent wrote on a board to figures and a verdict. Imports no other room."""
