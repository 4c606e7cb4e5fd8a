"""The frozen result types, one file for each kind. SI units inside: seconds and bytes. No torch.

A value that is not known is ``None`` and the record says why; it is never 0.
"""
