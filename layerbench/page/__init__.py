"""The page that shows records: what it is told (`document`), and what it is made of (`assets`).

It is served by the service and written as one file by the HTML format. No torch.
"""
