"""The HTTP face of a trained run: a REST interface, and a page that asks it. Needs the extra `serve`."""
