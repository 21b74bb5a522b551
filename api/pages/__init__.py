"""The web pages: drawn on the server with Jinja2, one file per page, nothing from outside, of full use without JavaScript."""
