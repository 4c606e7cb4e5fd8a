"""The machine, the software and the devices that a figure belongs to."""
