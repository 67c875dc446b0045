"""A bundle on a page that any browser opens, a phone's too: camera in, overlay out.

`cli` is the command, `server` what it serves and to whom, `library` the engine that runs in the
browser, `page.html` the page.
"""
