"""This machine and this process: devices, memory, processes, installed software."""
