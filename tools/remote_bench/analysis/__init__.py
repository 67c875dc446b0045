"""From samples to figures and a verdict. Imports host."""
