"""``python -m wsdcast``."""

from wsdcast.cli import app

app(prog_name="wsdcast")
