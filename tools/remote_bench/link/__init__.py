"""What passes between here and the agent: lines, files, the code that travels. Imports host."""
